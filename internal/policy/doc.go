// Package policy knows what policy.json means: its grammar, the scopes that are looked up for an image, and the
// identities that a signature may carry. It is pure and links no image library, so that everybody may import it, the
// agent too. Tests hold it against the library.
//
// Other packages name no word of policy.json themselves. They use the types and the constants of this one.
package policy
