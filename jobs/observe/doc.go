// Package observe tells others how a command goes: health checks, Prometheus,
// OpenTelemetry and OpenLineage.
//
// Nobody who listens can disturb a run. Whatever is sent goes by goroutines of
// its own; what cannot be sent is dropped, with one line in the log; and at the
// end a [Watch] waits no longer than [Patience], or [Haste] for a command that a
// signal ended. Logs name the scheme and host of a receiver, never the rest of
// its URL, which may hold a secret.
//
// What is sent where is said by the environment, as each of these systems has
// it, and by [Options].
package observe
