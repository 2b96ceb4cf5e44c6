package trust

// Advisory is a known hole in the verifier of some versions of the image library: what it lets through.
type Advisory struct {
	// ID names the advisory in reports, metrics and docs: lower case and hyphens, for example "forged-schema1".
	ID string `json:"id"`
	// Title says in one line what a reader with the hole accepts.
	Title string `json:"title"`
	// Since is the first version of the image library that has the hole, "" for all old ones; Fixed is the first without it.
	Since string `json:"since,omitempty"`
	Fixed string `json:"fixed"`

	since, fixed Version
}

// Advisories lists the known holes, the newest first.
func Advisories() []Advisory {
	out := []Advisory{
		{
			ID:    "forged-schema1",
			Title: "the digest of a schema-1 manifest is taken from a payload that the server supplies: any signature of a repository vouches for any content",
			fixed: Version{5, 42, 1},
		},
	}
	for i := range out {
		out[i].Fixed = out[i].fixed.String()
		if out[i].since != (Version{}) {
			out[i].Since = out[i].since.String()
		}
	}
	return out
}

// Advisories lists the holes that the reader's library has. An empty list says that none is known.
func (r Reader) Advisories() []Advisory {
	var out []Advisory
	for _, a := range Advisories() {
		if r.Library.Less(a.fixed) && !r.Library.Less(a.since) {
			out = append(out, a)
		}
	}
	return out
}
