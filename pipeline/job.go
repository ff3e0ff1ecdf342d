package pipeline

import (
	"time"
)

// Job is the specification of a batch job: what to label, with which model,
// how, and where to. [ParseJob] reads it from YAML, fills the defaults and
// refuses what contradicts itself.
//
// Every field carries its documentation in the doc tag, from which
// [JobTemplate] writes the commented file of `sela job init`. Fields tagged
// run:"free" say how a machine does the work; they may change between two
// attempts at one run. All others decide what the labels are or where they go:
// they belong to the run's identity (see [Job.Digest]).
type Job struct {
	Name       string     `yaml:"job" json:"job" doc:"name of the job: lower-case letters, digits and dashes; it names leases and runs"`
	Images     Images     `yaml:"images" json:"images" doc:"what to label"`
	Work       Place      `yaml:"work" json:"work" doc:"where runs keep their state: one folder per run"`
	Labels     Place      `yaml:"labels" json:"labels" doc:"where label tables are published for others to read"`
	Model      Model      `yaml:"model" json:"model" doc:"the classifier: T heads of K outputs"`
	Preprocess Preprocess `yaml:"preprocess" json:"preprocess" doc:"from encoded image to the model's input"`
	Runtime    Runtime    `yaml:"runtime" json:"runtime" doc:"how the model is run"`
	Extract    Extract    `yaml:"extract" json:"extract" doc:"images to log-probabilities"`
	Solve      Solve      `yaml:"solve" json:"solve" doc:"log-probabilities to potentials: the balanced assignment"`
	Label      Label      `yaml:"label" json:"label" doc:"potentials to label tables"`
	Gate       Gate       `yaml:"gate" json:"gate" run:"free" doc:"what keeps labels from being published: exit 65 before anybody sees them; the run before is that of label.previous, else the job's newest published one"`
	Train      Train      `yaml:"train" json:"train" run:"free" doc:"what a published label set triggers"`
	Loop       Loop       `yaml:"loop" json:"loop" run:"free" doc:"rounds of labels and training: sela loop"`
	Report     Report     `yaml:"report" json:"report" run:"free" doc:"the page that shows a run: sela report"`
	Local      Local      `yaml:"local" json:"local" run:"free" doc:"this machine's disk: scratch and cache together"`
	Keep       Keep       `yaml:"keep" json:"keep" run:"free" doc:"retention, applied at the end of a run and by gc"`
	Timeouts   Timeouts   `yaml:"timeouts" json:"timeouts" run:"free" doc:"when to give up waiting"`
	Retries    Retries    `yaml:"retries" json:"retries" run:"free" doc:"attempts in all, with growing pauses between them"`
	Limits     Limits     `yaml:"limits" json:"limits" run:"free" doc:"what is asked of others at once"`
}

// Images says which objects of a bucket are labelled.
type Images struct {
	Bucket      string  `yaml:"bucket" json:"bucket" doc:"bucket URL (file:///dir, s3://bucket) or a folder relative to this file; required"`
	Prefix      string  `yaml:"prefix" json:"prefix" doc:"only keys that begin with it"`
	Glob        string  `yaml:"glob" json:"glob" doc:"only keys matching it, below the prefix: *, ?, [a-z], ** over folders; empty = all"`
	Only        string  `yaml:"only" json:"only" doc:"CSV file (header key,member) of the images to label, in any order; empty = all"`
	Limit       int64   `yaml:"limit" json:"limit" doc:"only the first so many images in key order, after sample; 0 = all"`
	Sample      float64 `yaml:"sample" json:"sample" doc:"only this share of the images, chosen by a hash of key and member: (0, 1]"`
	MaxRejected float64 `yaml:"max_rejected" json:"max_rejected" run:"free" doc:"the run stops when a larger share of the images is quarantined: [0, 1]"`
}

// Place is a bucket that the job writes.
type Place struct {
	Bucket string `yaml:"bucket" json:"bucket" doc:"bucket URL or a folder relative to this file; required"`
}

// Model names the classifier and what its outputs mean.
type Model struct {
	Path     string   `yaml:"path" json:"path" run:"free" doc:"ONNX file, relative to this file, or its bucket URL; external weights lie beside it; its digest counts, not its place; required"`
	Input    string   `yaml:"input" json:"input" doc:"name of the image input; empty = the only input"`
	Outputs  []string `yaml:"outputs" json:"outputs" doc:"head outputs in order, each [B, K] or one [B, T, K]; empty = every output but features"`
	Kind     string   `yaml:"kind" json:"kind" doc:"what the outputs are: logits, probabilities or log_probabilities"`
	Features string   `yaml:"features" json:"features" doc:"name of a [B, D] tensor to write beside the log-probabilities; empty = none"`
	Heads    int      `yaml:"heads" json:"heads" doc:"T, checked against the model; 0 = as the model has"`
	Clusters int      `yaml:"clusters" json:"clusters" doc:"K of every head, checked against the model; 0 = as the model has"`
}

// Preprocess says how an encoded image becomes the model's input.
type Preprocess struct {
	Resize      Size       `yaml:"resize" json:"resize" doc:"pixels: one number for the shorter side, [height, width], or 0 to leave as is"`
	Crop        Size       `yaml:"crop" json:"crop" doc:"pixels: centre crop, one number or [height, width]; 0 = none"`
	Filter      string     `yaml:"filter" json:"filter" doc:"resampling as Pillow's: bilinear, bicubic, box, lanczos, nearest"`
	Order       string     `yaml:"order" json:"order" doc:"of a resize's two passes: horizontal-first (Pillow before 13) or pillow-13 (rows first where many more rows than columns go)"`
	Decode      string     `yaml:"decode" json:"decode" doc:"exact (Pillow's pixels), or scaled: large JPEGs are decoded at a fraction of their size, faster and slightly different (needs libjpeg-turbo)"`
	Orientation string     `yaml:"orientation" json:"orientation" doc:"ignore (as torchvision's loaders do), or exif: turn images as their EXIF orientation says"`
	Normalise   string     `yaml:"normalise" json:"normalise" doc:"where mean and std are applied: host, or device (images go to the runtime as bytes, a quarter of the size; same results); no effect on uint8 inputs"`
	Mean        [3]float64 `yaml:"mean" json:"mean" doc:"per channel RGB, on the scale 0 to 1; not applied to uint8 inputs"`
	Std         [3]float64 `yaml:"std" json:"std" doc:"per channel RGB, on the scale 0 to 1; not applied to uint8 inputs"`
	Layout      string     `yaml:"layout" json:"layout" doc:"nchw, nhwc, or auto (where the model's input has its 3)"`
	MaxPixels   int64      `yaml:"max_pixels" json:"max_pixels" doc:"pixels: a larger image is quarantined before it is decoded"`
	MaxBytes    Bytes      `yaml:"max_bytes" json:"max_bytes" doc:"bytes: a larger encoded image is quarantined before it is read"`
}

// Runtime says how ONNX Runtime is set up.
type Runtime struct {
	Library   string   `yaml:"library" json:"library" run:"free" doc:"path of the ONNX Runtime library; empty = SELA_ONNXRUNTIME, then beside the binary, then the system's"`
	Providers []string `yaml:"providers" json:"providers" doc:"execution providers in order: cpu, cuda, tensorrt; one that cannot be had is an error"`
	Device    int      `yaml:"device" json:"device" run:"free" doc:"number of the GPU"`
	Threads   int      `yaml:"threads" json:"threads" run:"free" doc:"batches run at once, each on one thread; 0 = the number of cores, 3 on a GPU"`
	Batch     int      `yaml:"batch" json:"batch" doc:"images per call; 0 = the model's own where it is fixed, else 64, fewer for large images on a CPU"`
	Precision string   `yaml:"precision" json:"precision" doc:"float32, tf32 (cuda, tensorrt) or float16 (tensorrt)"`
}

// Extract says how images are cut into tasks.
type Extract struct {
	ShardRows int64  `yaml:"shard_rows" json:"shard_rows" doc:"rows per task and log-probability shard: a multiple of 1024"`
	Stored    string `yaml:"stored" json:"stored" doc:"precision of stored log-probabilities: float32, or uint16 (half the bytes; the labels that it changes are counted on the sample)"`
	Reuse     string `yaml:"reuse" json:"reuse" run:"free" doc:"latest (images that have not changed since the job's last published run keep its log-probabilities, if they were made alike and are kept: keep.logprobs) or none"`
	Decoders  int    `yaml:"decoders" json:"decoders" run:"free" doc:"images decoded at once; 0 = the number of cores (on a CPU the same threads run batches)"`
	ReadAhead Bytes  `yaml:"read_ahead" json:"read_ahead" run:"free" doc:"bytes of encoded images fetched ahead"`
	Requests  int    `yaml:"requests" json:"requests" run:"free" doc:"requests to the images' store under way at once; 0 = as many as read_ahead holds, at most 256"`
}

// Solve says how the assignment is found.
type Solve struct {
	Method        string    `yaml:"method" json:"method" doc:"lists (a few passes over the log-probabilities; lbfgs where they are flat), lbfgs, sinkhorn (as the SeLa reference, pass for pass), fixed (the potentials of another run); to compare with: kmeans, deepcluster, random, truth"`
	Lambda        float64   `yaml:"lambda" json:"lambda" doc:"inverse temperature λ: the solver sees λ·log p"`
	Tolerance     float64   `yaml:"tolerance" json:"tolerance" doc:"stop at this L1 error of the clusters' shares; sinkhorn: at this summed relative change of the row scalings, checked every 10 iterations; 0 = 1e-6, 0.1 for sinkhorn"`
	MaxIterations int       `yaml:"max_iterations" json:"max_iterations" run:"free" doc:"give up after so many full passes: no labels are published from an unconverged solve"`
	Marginals     []float64 `yaml:"marginals" json:"marginals" doc:"the share of each cluster: K positive numbers that sum to 1; empty = by power"`
	Power         float64   `yaml:"power" json:"power" doc:"cluster k's share is proportional to (k+1)^-power; 0 = equal shares"`
	Balance       string    `yaml:"balance" json:"balance" doc:"none (labels are the best clusters, which hold about their shares) or exact (every cluster holds its share of the images, rounded down or up)"`
	Anneal        []float64 `yaml:"anneal" json:"anneal" doc:"ascending values of λ below lambda at which the sample is solved in turn before; empty = none"`
	From          string    `yaml:"from" json:"from" doc:"method fixed: id of the published run whose potentials are used"`
	Start         string    `yaml:"start" json:"start" doc:"lists, lbfgs: id of a published run whose potentials may start the solve; empty = none"`
	Seed          int64     `yaml:"seed" json:"seed" doc:"kmeans, deepcluster, random: of their draws"`
	Truth         string    `yaml:"truth" json:"truth" doc:"method truth: folders (an image's class is the last folder of its name) or a CSV file (header key,member,class)"`
	Device        string    `yaml:"device" json:"device" doc:"cpu, or cuda: passes on the GPU over log-probabilities held there"`
	Workers       int       `yaml:"workers" json:"workers" run:"free" doc:"threads of a pass; 0 = the number of cores"`
	Memory        Bytes     `yaml:"memory" json:"memory" run:"free" doc:"bytes for the sample and the lists of a solve; what exceeds it is streamed, or goes to scratch"`
}

// Label says what the label tables hold.
type Label struct {
	TopK          int     `yaml:"top_k" json:"top_k" doc:"soft labels: the k most probable clusters of each image; 0 = hard labels only"`
	PartRows      int64   `yaml:"part_rows" json:"part_rows" doc:"row numbers per label file"`
	Previous      string  `yaml:"previous" json:"previous" doc:"fill prev_label from this published run: a run id, latest, or empty for none"`
	MaxCountRatio float64 `yaml:"max_count_ratio" json:"max_count_ratio" run:"free" doc:"refuse to publish when a cluster holds more than so many times its share"`
}

// Train says what is triggered once the labels are published.
type Train struct {
	Type     string   `yaml:"type" json:"type" doc:"none, command, http, airflow or builtin"`
	Command  []string `yaml:"command" json:"command" doc:"command: program and arguments; {manifest}, {labels}, {run} and {model} are replaced"`
	URL      string   `yaml:"url" json:"url" doc:"http: where the manifest is POSTed, with its digest as Idempotency-Key; airflow: the API server's base URL"`
	DAG      string   `yaml:"dag" json:"dag" doc:"airflow: id of the training DAG; it runs once per manifest, whose URL and digest its conf has"`
	TokenEnv string   `yaml:"token_env" json:"token_env" doc:"http, airflow: name of the environment variable that holds a bearer token"`
	LoginEnv string   `yaml:"login_env" json:"login_env" doc:"airflow: name of the environment variable that holds user:password, for which a token is asked; instead of token_env"`
	Timeout  Duration `yaml:"timeout" json:"timeout" doc:"of one attempt; 0s = the task timeout, none for builtin"`
	Builtin  Builtin  `yaml:"builtin" json:"builtin" doc:"builtin: train the model on the labels, here"`
}

// Loop says how rounds of labels and training follow one another.
type Loop struct {
	Start     string  `yaml:"start" json:"start" doc:"first labels: model (those of the network before any training) or random (equal shares by lot)"`
	Calibrate int     `yaml:"calibrate" json:"calibrate" doc:"images that give the untrained network its BatchNorm statistics; 0 = leave them as they are"`
	Schedule  string  `yaml:"schedule" json:"schedule" doc:"when labels are made: even (after each train.builtin.epochs) or power (round i at (i/rounds)^power of the whole training)"`
	Power     float64 `yaml:"power" json:"power" doc:"schedule power: 2 as the SeLa reference"`
	StopChurn float64 `yaml:"stop_churn" json:"stop_churn" doc:"end early once a smaller share of labels changes in a round and the learning rate has fallen to a tenth: [0, 1]; 0 = never"`
	Truth     string  `yaml:"truth" json:"truth" doc:"compare each round's labels with it, never train on it: folders, or a CSV file (header key,member,class); empty = none"`
}

// Report says what the page that shows a run holds.
type Report struct {
	Write            bool `yaml:"write" json:"write" doc:"write it at the end of every run; sela report writes it at any time"`
	ImagesPerCluster int  `yaml:"images_per_cluster" json:"images_per_cluster" doc:"most confident images shown of each cluster; 0 = none"`
	Images           int  `yaml:"images" json:"images" doc:"images read for it in all: where that is too few, clusters show fewer, those at the two ends of their order most"`
}

// Local bounds what a process puts on its own disk.
type Local struct {
	Dir   string `yaml:"dir" json:"dir" doc:"folder for scratch and cache; empty = sela in the system's folder for temporary files"`
	Bytes Bytes  `yaml:"bytes" json:"bytes" doc:"bytes of scratch and cache together"`
}

// Keep says what outlives a published run.
type Keep struct {
	LogProbs string `yaml:"logprobs" json:"logprobs" doc:"log-probabilities, features and samples: until_published, always, or a number of newest published runs"`
}

// Timeouts bound every wait.
type Timeouts struct {
	Request Duration `yaml:"request" json:"request" doc:"of one request to a store, without progress"`
	Task    Duration `yaml:"task" json:"task" doc:"of one attempt at a task"`
}

// Retries bound every repetition.
type Retries struct {
	Request int `yaml:"request" json:"request" doc:"requests to a store; 10 wait out 90 seconds or so in which it does not serve"`
	Task    int `yaml:"task" json:"task" doc:"attempts at a task that fails for a reason that may pass"`
}

// Limits bound what is asked of others.
type Limits struct {
	Requests int `yaml:"requests" json:"requests" doc:"requests that wait for one bucket's answer at once, of reads and of writes each"`
}

// DefaultJob returns a job whose every optional field has its default.
func DefaultJob() *Job {
	return &Job{
		Name:   "labels",
		Images: Images{Sample: 1, MaxRejected: 0.05},
		Model:  Model{Kind: "logits"},
		Preprocess: Preprocess{
			Resize: Size{256}, Crop: Size{224}, Filter: "bilinear", Order: "horizontal-first",
			Decode: "exact", Orientation: "ignore", Normalise: "host", Layout: "auto",
			// The channel statistics of ImageNet as torchvision's transforms use them.
			Mean: [3]float64{0.485, 0.456, 0.406}, Std: [3]float64{0.229, 0.224, 0.225},
			MaxPixels: 100_000_000, MaxBytes: 256 << 20,
		},
		Runtime:  Runtime{Providers: []string{"cpu"}, Precision: "float32"},
		Extract:  Extract{ShardRows: 8192, Stored: "float32", Reuse: "latest", ReadAhead: 64 << 20},
		Solve:    Solve{Method: "lists", Lambda: 25, MaxIterations: 20000, Balance: "none", Device: "cpu", Memory: 1 << 30},
		Label:    Label{PartRows: 983040, MaxCountRatio: 1.5},
		Gate:     defaultGate(),
		Train:    Train{Type: "none", Builtin: defaultBuiltin()},
		Loop:     Loop{Start: "model", Calibrate: 1024, Schedule: "even", Power: 2},
		Report:   Report{Write: true, ImagesPerCluster: 8, Images: 32768},
		Local:    Local{Bytes: 16 << 30},
		Keep:     Keep{LogProbs: "1"},
		Timeouts: Timeouts{Request: Duration(60 * time.Second), Task: Duration(2 * time.Hour)},
		Retries:  Retries{Request: 10, Task: 3},
		Limits:   Limits{Requests: 256},
	}
}
