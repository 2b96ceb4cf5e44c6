package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// jsonNode is a JSON value that knows where it stands. Objects keep duplicate keys.
type jsonNode struct {
	line int
	// raw is the value's own text.
	raw []byte
	// One of these, by the value's kind; scalars are string, json.Number, bool or nil.
	object []jsonMember
	array  []*jsonNode
	scalar any
	kind   byte // '{', '[' or 's'
}

type jsonMember struct {
	key   string
	line  int
	value *jsonNode
}

// get returns the value of the last member with the key, as encoding/json would.
func (n *jsonNode) get(key string) *jsonNode {
	for _, m := range slices.Backward(n.object) {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

func (n *jsonNode) text() (string, bool) {
	if n == nil {
		return "", false
	}
	s, ok := n.scalar.(string)
	return s, ok
}

// what names the kind of value for messages.
func (n *jsonNode) what() string {
	switch n.kind {
	case '{':
		return "an object"
	case '[':
		return "a list"
	}
	switch n.scalar.(type) {
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "a boolean"
	}
	return "null"
}

// jsonError is a syntax error with its line.
type jsonError struct {
	line int
	err  error
}

func (e *jsonError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *jsonError) Unwrap() error { return e.err }

// parseJSON reads one JSON document, by the grammar of encoding/json.
func parseJSON(data []byte) (*jsonNode, error) {
	// Unmarshal checks syntax, depth and trailing text before anything is built.
	var skip json.RawMessage
	if err := json.Unmarshal(data, &skip); err != nil {
		e := &jsonError{line: 1, err: err}
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			e.line = 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		}
		return nil, e
	}
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.dec.UseNumber()
	n, err := p.value()
	if err != nil {
		return nil, &jsonError{line: p.line, err: err}
	}
	return n, nil
}

type jsonParser struct {
	data []byte
	dec  *json.Decoder
	at   int // up to where lines have been counted
	line int
}

// token returns the next token, its line and where it starts.
func (p *jsonParser) token() (json.Token, int, int, error) {
	t, err := p.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, 0, err
	}
	end := int(p.dec.InputOffset())
	start := p.at + bytes.IndexFunc(p.data[p.at:end], func(r rune) bool { return !strings.ContainsRune(" \t\r\n,:", r) })
	p.line += bytes.Count(p.data[p.at:start], []byte("\n"))
	line := p.line
	p.line += bytes.Count(p.data[start:end], []byte("\n"))
	p.at = end
	return t, line, start, nil
}

func (p *jsonParser) value() (*jsonNode, error) {
	t, line, start, err := p.token()
	if err != nil {
		return nil, err
	}
	n := &jsonNode{line: line, kind: 's'}
	d, ok := t.(json.Delim)
	if !ok {
		n.scalar = t
		n.raw = p.data[start:p.at]
		return n, nil
	}
	n.kind = byte(d)
	for p.dec.More() {
		var m jsonMember
		if d == '{' {
			k, line, _, err := p.token()
			if err != nil {
				return nil, err
			}
			m.key, _ = k.(string)
			m.line = line
		}
		if m.value, err = p.value(); err != nil {
			return nil, err
		}
		if d == '{' {
			n.object = append(n.object, m)
		} else {
			n.array = append(n.array, m.value)
		}
	}
	if _, _, _, err := p.token(); err != nil {
		return nil, err
	}
	n.raw = p.data[start:p.at]
	return n, nil
}

// jsonPath is a place in a JSON document, for messages.
type jsonPath string

func (p jsonPath) key(k string) jsonPath {
	plain := k != "" && !strings.ContainsFunc(k, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
	if !plain {
		return p + jsonPath("["+strconv.Quote(k)+"]")
	}
	if p == "" {
		return jsonPath(k)
	}
	return p + jsonPath("."+k)
}

func (p jsonPath) index(i int) jsonPath { return p + jsonPath("["+strconv.Itoa(i)+"]") }
