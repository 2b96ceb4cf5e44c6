//go:build containers_image_openpgp

package verify

// Mechanism is the OpenPGP mechanism this program judges signatures with. The pure-Go one refuses OpenPGP v3 signature
// packets, which genuine older Red Hat signatures are; verdicts that hang on that are unknown, never refuse.
const Mechanism = "openpgp"
