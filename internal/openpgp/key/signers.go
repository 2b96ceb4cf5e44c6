package key

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// State is the worth of a key's signatures to GnuPG at a time.
type State string

// The states of a key.
const (
	Usable  State = "usable"
	Revoked State = "revoked"
	Expired State = "expired"
	NotYet  State = "not valid yet" // made later
	Unfit   State = "not made for signing"
)

// Signer is a primary key or a subkey. GnuPG accepts signatures of usable ones only.
type Signer struct {
	Fingerprint string
	Primary     string // fingerprint of the primary key
	State       State
}

// Signers lists the keys in OpenPGP key files that are read together, with their states at a time. It merges copies of
// a key as GnuPG does: the newest self-signature counts, and a revocation anywhere does. It verifies every
// self-signature.
//
// An error means that GnuPG may see the files otherwise, because a part of them is not fully understood. Then nothing
// is known, not even that a key in them is usable.
func Signers(files [][]byte, at time.Time) ([]Signer, error) {
	r := ring{byID: map[string]string{}}
	for _, data := range files {
		f, err := Read(data)
		if err != nil {
			return nil, err
		}
		switch {
		case f.Kind != OpenPGP:
			return nil, fmt.Errorf("holds no OpenPGP key")
		case !f.Plain:
			return nil, fmt.Errorf("is armored in an unusual way")
		}
		for _, k := range f.Keys {
			if err := r.add(k); err != nil {
				return nil, fmt.Errorf("key %s: %w", k.Fingerprint, err)
			}
		}
	}
	var out []Signer
	for _, c := range r.keys {
		signers, err := c.signers(at)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", c.primary.Fingerprint, err)
		}
		out = append(out, signers...)
	}
	return out, nil
}

type ring struct {
	keys []*certificate
	byID map[string]string // by key ID: the primary key, or the one whose subkey has the ID
}

// certificate is a primary key with its self-signatures.
type certificate struct {
	primary keyPacket
	direct  []selfSignature // and revocations
	users   []*user
	subkeys []*boundKey
}

type keyPacket struct {
	Key
	body []byte
}

type user struct {
	id   []byte
	sigs []selfSignature
}

type boundKey struct {
	keyPacket
	sigs []selfSignature
}

func (r *ring) add(k Key) error {
	if k.Version != 4 {
		return fmt.Errorf("is of OpenPGP version %d", k.Version)
	}
	var c *certificate
	var at place
	for data := k.Data; len(data) > 0; {
		tag, body, size, err := nextPacket(data)
		if err != nil {
			return err
		}
		data = data[size:]
		switch tag {
		case tagMarker, tagTrust:
		case tagPublicKey:
			c = r.certificate(keyPacket{k, body})
			if err := r.identify(k, k); err != nil {
				return err
			}
			at = place{sigs: &c.direct}
		case tagUserID:
			at = c.user(body)
		case tagPublicSubkey:
			sub, err := parseKey(body)
			if err != nil {
				return err
			}
			if sub.Version != 4 {
				return fmt.Errorf("has a subkey of OpenPGP version %d", sub.Version)
			}
			if err := r.identify(k, sub); err != nil {
				return err
			}
			at = c.subkey(keyPacket{sub, body})
		case tagSignature:
			if err := at.take(body, c.primary); err != nil {
				return err
			}
		default:
			return fmt.Errorf("has a packet of type %d", tag)
		}
	}
	return nil
}

// identify checks that no two keys have one ID: GnuPG would take either.
func (r *ring) identify(primary, k Key) error {
	owner := primary.Fingerprint + " " + k.Fingerprint
	if first, ok := r.byID[k.ID()]; ok && first != owner {
		return fmt.Errorf("there are two keys of the ID %s", k.ID())
	}
	r.byID[k.ID()] = owner
	return nil
}

func (r *ring) certificate(k keyPacket) *certificate {
	return oneOf(&r.keys, &certificate{primary: k},
		func(c *certificate) bool { return c.primary.Fingerprint == k.Fingerprint })
}

func (c *certificate) user(id []byte) place {
	u := oneOf(&c.users, &user{id: id}, func(u *user) bool { return bytes.Equal(u.id, id) })
	return place{user: id, sigs: &u.sigs}
}

func (c *certificate) subkey(k keyPacket) place {
	s := oneOf(&c.subkeys, &boundKey{keyPacket: k}, func(s *boundKey) bool { return s.Fingerprint == k.Fingerprint })
	return place{sub: &s.keyPacket, sigs: &s.sigs}
}

// oneOf returns the one of a list that is meant, or adds one.
func oneOf[T any](list *[]T, other T, meant func(T) bool) T {
	if i := slices.IndexFunc(*list, meant); i >= 0 {
		return (*list)[i]
	}
	*list = append(*list, other)
	return other
}

// place is the part of a key before a signature: the primary key, a user ID or a subkey.
type place struct {
	user []byte
	sub  *keyPacket
	sigs *[]selfSignature
}

// take records a verified self-signature of the primary key. It skips other people's signatures.
func (p place) take(body []byte, primary keyPacket) error {
	s, err := parseSelf(body)
	if err != nil {
		return err
	}
	if own, err := s.madeBy(primary.Key); err != nil || !own {
		return err
	}
	if !p.holds(s.kind) {
		return fmt.Errorf("has a signature of type 0x%02x at an unusual place", s.kind)
	}
	if err := s.check(); err != nil {
		return err
	}
	if err := s.verify(primary, s.digestOf(primary, p.user, p.sub)); err != nil {
		return err
	}
	if s.kind == sigBinding && s.sign() {
		if err := s.checkBack(primary, *p.sub); err != nil {
			return err
		}
	}
	*p.sigs = append(*p.sigs, s)
	return nil
}

// holds reports whether GnuPG looks for signatures of a kind at the place.
func (p place) holds(kind byte) bool {
	switch kind {
	case sigDirect, sigRevokesKey:
		return p.user == nil && p.sub == nil
	case 0x10, 0x11, 0x12, 0x13, sigRevokesUser:
		return p.user != nil
	case sigBinding, sigRevokesSubkey:
		return p.sub != nil
	}
	return false
}

func (c *certificate) signers(at time.Time) ([]Signer, error) {
	p, err := c.properties(at)
	if err != nil {
		return nil, err
	}
	self := p.state(c.primary.Key, at)
	fpr := c.primary.Fingerprint
	out := []Signer{{fpr, fpr, self}}
	for _, s := range c.subkeys {
		state, err := s.state(at)
		switch {
		case err != nil:
			return nil, fmt.Errorf("subkey %s: %w", s.Fingerprint, err)
		case state == Unfit:
		case self == Revoked || self == Expired || self == NotYet: // takes its subkeys along
			state = self
		}
		out = append(out, Signer{s.Fingerprint, fpr, state})
	}
	return out, nil
}

// properties are those that the newest self-signatures give a key.
type properties struct {
	revoked  bool
	lifetime uint32 // in seconds, 0 is for ever
	sign     bool
}

func (p properties) state(k Key, at time.Time) State {
	made := uint32(k.Created.Unix())
	end := made + p.lifetime // wraps around, as in GnuPG
	switch {
	case p.revoked:
		return Revoked
	case p.lifetime != 0 && end != 0 && int64(end) <= at.Unix():
		return Expired
	case k.Created.After(at):
		return NotYet
	case !p.sign || !k.canSign():
		return Unfit
	}
	return Usable
}

// properties returns those of the primary key. A signature on the key itself goes before those on user IDs, of which
// the newest one with a property counts.
func (c *certificate) properties(at time.Time) (properties, error) {
	var p properties
	for _, s := range c.direct {
		p.revoked = p.revoked || s.kind == sigRevokesKey
	}
	direct, err := newest(c.direct, at, func(s selfSignature) bool { return s.kind == sigDirect })
	if err != nil {
		return p, err
	}
	var certified []selfSignature
	for _, u := range c.users {
		s, err := newest(u.sigs, at, func(selfSignature) bool { return true })
		if err != nil {
			return p, err
		}
		if s != nil && s.kind != sigRevokesUser {
			certified = append(certified, *s)
		}
	}
	if len(certified) == 0 {
		return p, fmt.Errorf("has no user ID that it vouches for")
	}
	flags, err := newest(certified, at, func(s selfSignature) bool { return s.flags != nil })
	if err != nil {
		return p, err
	}
	life, err := newest(certified, at, func(s selfSignature) bool { return s.lifetime != 0 })
	if err != nil {
		return p, err
	}
	if direct != nil && direct.flags != nil {
		flags = direct
	}
	if direct != nil && direct.lifetime != 0 {
		life = direct
	}
	p.sign = flags == nil || flags.sign()
	if life != nil {
		p.lifetime = life.lifetime
	}
	return p, nil
}

// state returns the state of a subkey, apart from its primary key's. A signing subkey was found to vouch for the
// primary key.
func (b *boundKey) state(at time.Time) (State, error) {
	var p properties
	for _, s := range b.sigs {
		p.revoked = p.revoked || s.kind == sigRevokesSubkey
	}
	binding, err := newest(b.sigs, at, func(s selfSignature) bool { return s.kind == sigBinding })
	switch {
	case err != nil:
		return "", err
	case binding == nil || !binding.sign() || !b.canSign():
		return Unfit, nil
	}
	p.sign, p.lifetime = true, binding.lifetime
	return p.state(b.Key, at), nil
}

// newest returns the newest signature that counts at a time, or nil. Two of one second must not differ.
func newest(sigs []selfSignature, at time.Time, counts func(selfSignature) bool) (*selfSignature, error) {
	var out *selfSignature
	for i, s := range sigs {
		switch {
		case !counts(s), s.over(at):
		case out == nil || s.made > out.made:
			out = &sigs[i]
		case s.made == out.made && !s.means(*out):
			return nil, fmt.Errorf("has two signatures of one second that differ")
		}
	}
	return out, nil
}
