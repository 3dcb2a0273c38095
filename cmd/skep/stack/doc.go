// Package stack is what `skep stack` knows of stacks: it loads compose files of today's Compose
// Specification, says what deploying them would change, and writes a compose file of what is deployed.
//
// The commands in cmd/skep call it. Loading, comparing and exporting read the given files and
// nothing else, and decide alone; what speaks to a cluster is in the commands.
//
// Guarantees: a file that `docker stack deploy` takes makes the same specs here (TestLoad_AsDocker),
// since docker's own conversion makes them. What has no meaning in a cluster is a warning, never
// silence. Whatever is made carries docker's stack labels, so that docker's own `stack ls`, `ps`,
// `services` and `rm` know it.
package stack
