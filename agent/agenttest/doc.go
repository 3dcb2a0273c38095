// Package agenttest holds the tests that need an agent and its drivers together,
// and nothing else: sessions and restarts on simulated containers under a fake
// clock, one conformance suite for all drivers, and whole agents on a real engine.
//
// go test runs it. It stands apart because agent must not import its drivers, not
// even in tests. Tests on a real engine are skipped with a notice where none
// answers, and fail instead when SKEP_REQUIRE_DOCKER=1.
package agenttest
