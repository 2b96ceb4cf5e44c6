// Package openpgp reads what OpenPGP signatures claim of themselves, without judging anything: nothing that it tells is
// proven. Keys are read by package key, which needs no OpenPGP library.
package openpgp

// OpenPGP packet tags.
const (
	tagSignature  = 2
	tagOnePass    = 4
	tagCompressed = 8
	tagLiteral    = 11
)
