// Package console is the web page of a cluster: what a person looks at to see whether all is
// well, and what isn't.
//
// Who runs it: each manager makes one Console, which cluster/api serves under /console/ on
// the node's own sockets. `skep console` runs a Proxy, by which a browser of the same machine
// gets there.
//
// How it is built: pages are made by html/template from view models, which are pure
// functions of a look (look.go): one View of this manager's own copy of the database, the
// health of the cluster as it was last asked for, and the time. Nothing waits for a leader, or
// for others for longer than a moment, so pages are there when there is none, and say so. All that the pages need is embedded;
// they work without JavaScript, and with it parts of them are fetched anew when they change.
//
// Guarantees: what users have named or written is escaped wherever it is shown. Values of
// variables, commands, drivers' options, secrets' data and configs' data are never shown. A page shows no more than
// maxRows of anything. Without the grant that a Proxy gives, nothing is shown, and without
// the one to write, nothing is changed; what is changed goes through the API's own handlers.
// All tabs together have one subscription to the database, and what all of them ask for is
// made twice a second at most; a tab that is closed leaves nothing behind.
package console
