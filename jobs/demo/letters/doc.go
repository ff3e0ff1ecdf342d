// Package letters draws the demo's images: small pictures of the letters A to
// Z, each a pure function of its number and a seed.
//
// The letter's outline comes from one of the Go fonts. It is turned, scaled,
// moved, filled in one of a few colour schemes, lit unevenly and covered with
// noise, so that images of one letter differ as photographs of one thing do,
// yet keep a shape that even a network with random weights partly sees.
//
// Numbers are dealt to letters in hands of 26, each hand a permutation of the
// alphabet: any count of images taken from number 0 has its letters balanced
// within one, and a number says nothing about its letter without the seed.
package letters
