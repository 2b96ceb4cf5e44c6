// Package policy knows the meaning of policy.json: its grammar, the scopes that are looked up for an image, and the
// identities of signatures. It is pure and links no image library, so that every package may import it, the agent's
// too. Tests compare it with the library.
//
// Other packages use its types and constants, and name no word of policy.json themselves.
package policy
