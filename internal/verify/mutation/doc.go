// Package mutation holds nothing but tests: what servers can send instead of an honest image is judged by the image
// library, as a pull does it, and by nodetrust. Both must agree, and what they accept must be what somebody signed.
package mutation
