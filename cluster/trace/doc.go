// Package trace makes spans of OpenTelemetry: what became of one request, from the API by way
// of the database and the scheduler to the container that runs, on whatever nodes that was.
//
// Each node has one Tracer, which the packages that do a part of it are given in their Config. A
// nil one does nothing and costs the comparison with nil. Start makes a span only below another, and
// only Serve begins a trace, for a request to the API: there is none of what nobody asked for.
//
// # One trace
//
// All that a `service create`, or another change of a service, brings about has one trace ID, and
// so is one picture:
//
//	api POST /services/create      the manager that was asked; it continues the client's traceparent
//	└ api forward                  if it follows
//	  └ api POST /services/create  the leader
//	    └ store.update             event taken: until then it waited for the proposer
//	      ├ raft.commit            index, how many updates the entry has
//	      ├ fsm.apply              on each manager, by skep.index
//	      ├ scheduler.plan         each plan of the service that wants anything
//	      │ └ store.update         as above
//	      └ dispatch.send          one message to an agent
//	        └ agent.task           from being assigned to running; events are states
//	          ├ agent.prepare, agent.start    below them, the engine's client's spans: pull, create, start
//	          ├ agent.health       until it is healthy, or listens
//	          └ dispatch.report    one for each report, until the leader has acknowledged it
//	            └ relay.leader
//	              └ store.update   as above
//
// So parents may end before their children begin. Links would be more exact, and a second trace to look for.
//
// Work that is done once for several traces, such as a commit of several updates, is a span in
// each of them, with links to its others; in 32 of them at most.
//
// # How it gets there
//
// Over HTTP by the header traceparent (W3C), in sessions and relays as a field. Nothing of it is in the log: which
// request a service's tasks come from, its origin, is known by the leader, in memory, for the
// services changed last (originsKept), for originLasts. The leader tells the other managers before it
// proposes the change, on a connection that lies ready, so they know in one trip, and of the entry
// with the tasks in five. One that is slow isn't waited for: what its agents do then isn't in the
// trace. A new leader knows as much as it was told. What an agent says of a trace counts only where
// it is that of the task's service.
//
// # What is in it
//
// Names of the spans above, routes, status codes, IDs of nodes, tasks and services, names of
// services, indexes, numbers. Never what a user wrote beside a service's name: no specs, arguments,
// environments, bodies, secrets' data, and no texts of errors, which may quote those. A span that
// failed says so, and the log says why. The engine's client adds the engine's URLs, with the names of
// containers and images, and what became of its connection.
//
// # Guarantees
//
// Nothing waits for a collector: what has ended goes into the SDK's queue, which drops what it has
// no room for. That a collector doesn't answer is in the log once, and once when it does again; Close
// waits for it two seconds at most. There is no tracer provider for the whole process: the client
// of the engine takes that of the span in its context, and whatever else looks for a global one
// would make spans that nobody asked for.
// Methods may be called by any goroutine.
package trace
