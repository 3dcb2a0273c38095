// Package helper is what processes of skep's have in common that outlive the daemon: names are
// answered and packets encrypted while it restarts.
//
// A helper works by a file, which is the wish that it runs: a Keeper in the daemon starts one while
// the file is there, and replaces one of another build. At its door the helper says who it is.
package helper
