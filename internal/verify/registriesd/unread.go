package registriesd

import "go.yaml.in/yaml/v3"

// UnreadKey is a key of a registries.d file that the image library drops without a word.
type UnreadKey struct {
	Key   string
	Scope string // "default-docker", or that of docker; "" at the top
	Line  int
	Why   string // what follows "nothing reads it", or ""
}

// UnreadKeys finds those of a file. What isn't a mapping has none.
func UnreadKeys(data []byte) (out []UnreadKey) {
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
		return nil
	}
	section := func(scope string, n *yaml.Node) {
		keys := map[string]bool{}
		eachPair(n, func(key, _ *yaml.Node) { keys[key.Value] = true })
		eachPair(n, func(key, _ *yaml.Node) {
			switch key.Value {
			case "lookaside", "sigstore", "use-sigstore-attachments":
			case "lookaside-staging", "sigstore-staging":
				if !keys["lookaside"] && !keys["sigstore"] {
					out = append(out, UnreadKey{key.Value, scope, key.Line, " when signatures are looked up: it is for signing only"})
				}
			default:
				out = append(out, UnreadKey{key.Value, scope, key.Line, ""})
			}
		})
	}
	eachPair(doc.Content[0], func(key, value *yaml.Node) {
		switch key.Value {
		case "docker":
			eachPair(value, func(scope, entry *yaml.Node) { section(scope.Value, entry) })
		case "default-docker":
			section("default-docker", value)
		default:
			out = append(out, UnreadKey{key.Value, "", key.Line, ""})
		}
	})
	return out
}

// eachPair calls f for the pairs of a mapping.
func eachPair(n *yaml.Node, f func(key, value *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i], n.Content[i+1])
	}
}
