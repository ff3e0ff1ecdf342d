// Package pipeline is the life of a run. It knows no image, no neural network
// and no mathematics: it knows how work is cut into tasks, how a task's output
// comes to exist, and how a process that died is continued by another.
//
// # Words
//
// A job is a YAML spec ([Job]). A run is one execution of a job: one round of
// labels, with an id ([Run]). A run passes through stages ([Stage]): list,
// extract, solve, label, publish, train. A stage's unit of work is a task
// ([Task]): a pure function of the job and of inputs named by digest, so that
// doing it twice does no harm. An attempt ([Attempt]) is one try at a task. A
// shard is what one task writes. A commit ([Commit]) is the record that makes
// an attempt's output exist. The manifest ([Manifest]) is the run's list of
// committed outputs: rows, bytes, sha256.
//
// # How output comes to exist
//
// An attempt writes files to local scratch, uploads each under a name that
// carries the attempt's own random id, and then creates the task's commit
// record if it is absent. Whoever creates the record wins; a late attempt finds
// it there and leaves. Nothing is ever overwritten or renamed, so an object
// named by a commit cannot change, and an object that no commit names does not
// exist for anybody (gc removes it).
//
//	<work>/runs/<run>/run.json                    what the run is, written first
//	<work>/runs/<run>/<stage's objects>.<attempt>…
//	<work>/runs/<run>/commits/<stage>/<task>.json
//	<work>/runs/<run>/_manifest.json, _SUCCESS    last
//	<work>/leases/<job>/<epoch>…                 who works on the job now
//
// # Who may work
//
// The processes of one run share the job's lease ([Lease]); another run is
// refused until the lease is released or has expired, or its holder is known to
// be dead. The lease saves work; correctness rests on the commits alone.
package pipeline
