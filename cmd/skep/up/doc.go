// Package up makes machines a cluster, keeps them one, and takes it away again, over
// the system's own ssh: it is what `skep up`, `skep check`, `skep down` and `skep image
// push` do.
//
// A person's terminal, or a pipeline, runs it. Everything follows from two things: the
// list of machines that somebody wants (List), and what each machine says of itself
// (Facts). Plan is a pure function of both: it says what is wrong, what is to be done,
// in words, and in which order. Up does the first step, looks at all machines again, and
// plans anew, until nothing is left. So a command that was ended anywhere is continued
// by the same command, and nothing is remembered between two of them but the list.
//
// What it guarantees: a second cluster is never made while any machine of the list is in
// one; managers join, change and go one at a time, and only while the others are a
// quorum without that one; passwords and tokens go by standard input, and are neither in
// arguments nor in the log; ssh asks what it asks anyway, and is never told to trust a
// host; nothing that looks at a machine outlives the command.
package up
