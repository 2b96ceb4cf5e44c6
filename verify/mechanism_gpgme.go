//go:build !containers_image_openpgp

package verify

// Mechanism is the OpenPGP mechanism this program judges signatures with.
const Mechanism = "gpgme"
