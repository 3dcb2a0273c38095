// Package crashtest cuts the power at every step that a program takes on its disk,
// for tests: it records what a run of the test's own binary did to a folder
// (strace tells), and makes the folder anew as it can be found after a crash at
// each step, in several ways that file systems allow. The test opens each and looks
// for what was acknowledged.
package crashtest
