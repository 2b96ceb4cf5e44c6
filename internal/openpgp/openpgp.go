// Package openpgp reads what OpenPGP signatures claim of themselves, and proves nothing of it. Package key reads keys.
package openpgp

// OpenPGP packet tags.
const (
	tagSignature  = 2
	tagOnePass    = 4
	tagCompressed = 8
	tagLiteral    = 11
)
