package main

// row is one line of the results: a way to labels and a network, trained on the
// same number of images as every other one.
type row struct {
	name, what  string
	arch        string // of the network; "" is resnet-s
	head        string // linear (default) or cosine
	heads       int
	clusters    int
	method      string  // solve.method; "" trains nothing
	lambda      float64 // 0: the default
	balance     string  // solve.balance; "" is none
	temperature float64
	scale, hue  float64 // the smallest crop and the turn of hues; 0: 0.2 and 0.4
	// once makes labels a single time, before training; else they are made again
	// after each epoch.
	once bool
	// labels names the row on whose final labels a fresh network is trained.
	labels   string
	rotation bool
	each     bool // measure after each epoch
	variant  string
	// budget multiplies the images trained on.
	budget float64
}

// The rows of CIFAR-10. One table for all: what differs between two rows is what
// differs between two lines here.
var rows = []row{
	{name: "pixels", what: "standardised pixels"},
	{name: "untrained", what: "untrained network", heads: 10, clusters: 128},
	{name: "random", what: "random labels [128×10]", heads: 10, clusters: 128, method: "random", once: true},
	{name: "kmeans", what: "k-means [128×10]", heads: 10, clusters: 128, method: "kmeans"},
	{name: "deepcluster-1", what: "DeepCluster [128×1]", heads: 1, clusters: 128, method: "deepcluster"},
	{name: "deepcluster", what: "DeepCluster [128×10]", heads: 10, clusters: 128, method: "deepcluster"},
	{name: "sela-1", what: "SeLa [128×1]", heads: 1, clusters: 128, method: "lists"},
	{name: "sela", what: "SeLa [128×10]", heads: 10, clusters: 128, method: "lists"},
	{name: "sela-rot", what: "SeLa [128×10] + Rot, fresh network on its final labels", labels: "sela", rotation: true},
	{name: "supervised", what: "true labels", heads: 1, clusters: 10, method: "truth", once: true},

	{name: "headline", what: "SeLa [128×10], 24 epochs, with cosine heads, smaller crops, less hue", head: "cosine", heads: 10, clusters: 128, method: "lists", lambda: 3, balance: "exact", scale: 0.08, hue: 0.1, budget: 4},

	{name: "tune-base", what: "half of the images, five epochs: as above", variant: "half", heads: 10, clusters: 128, method: "lists", budget: 5. / 12},
	{name: "tune-cosine", what: "– cosine heads, λ 3, exactly balanced", variant: "half", head: "cosine", heads: 10, clusters: 128, method: "lists", lambda: 3, balance: "exact", budget: 5. / 12},
	{name: "tune-crop", what: "– crops from 0.08", variant: "half", heads: 10, clusters: 128, method: "lists", scale: 0.08, budget: 5. / 12},
	{name: "tune-hue", what: "– hue 0.1", variant: "half", heads: 10, clusters: 128, method: "lists", hue: 0.1, budget: 5. / 12},
	{name: "tune-all", what: "– all three", variant: "half", head: "cosine", heads: 10, clusters: 128, method: "lists", lambda: 3, balance: "exact", scale: 0.08, hue: 0.1, budget: 5. / 12},
	{name: "tune-clusters", what: "– cosine heads [1024×4]", variant: "half", head: "cosine", heads: 4, clusters: 1024, method: "lists", lambda: 3, balance: "exact", budget: 5. / 12},

	{name: "resnet-18", what: "SeLa [128×10], ResNet-18, 400 epochs: the paper has 77.6 % kNN, 83.4 % linear", arch: "resnet-18-s", heads: 10, clusters: 128, method: "lists", budget: 400. / 6},

	{name: "retrained", what: "fresh network on SeLa's final labels, by epoch", labels: "sela", each: true},
	{name: "transfer-1", what: "alexnet-s on the labels of SeLa [128×1]", arch: "alexnet-s", labels: "sela-1"},
	{name: "transfer-10", what: "alexnet-s on the labels of SeLa [128×10]", arch: "alexnet-s", labels: "sela"},
	{name: "alexnet-own", what: "alexnet-s by its own loop, SeLa [128×10]", arch: "alexnet-s", heads: 10, clusters: 128, method: "lists"},

	{name: "light-supervised", what: "true labels, half of the trucks", variant: "light", heads: 1, clusters: 10, method: "truth", once: true},
	{name: "light-kmeans", what: "k-means [128×10], half of the trucks", variant: "light", heads: 10, clusters: 128, method: "kmeans"},
	{name: "light-sela", what: "SeLa [128×10], half of the trucks", variant: "light", heads: 10, clusters: 128, method: "lists"},
	{name: "heavy-supervised", what: "true labels, classes of 100 % to 10 %", variant: "heavy", heads: 1, clusters: 10, method: "truth", once: true},
	{name: "heavy-kmeans", what: "k-means [128×10], classes of 100 % to 10 %", variant: "heavy", heads: 10, clusters: 128, method: "kmeans"},
	{name: "heavy-sela", what: "SeLa [128×10], classes of 100 % to 10 %", variant: "heavy", heads: 10, clusters: 128, method: "lists"},
}

// shares says which part of each class, in the order of their names, a variant
// of the data set keeps.
var shares = map[string]func(class, classes int) float64{
	"": func(int, int) float64 { return 1 },
	"light": func(class, classes int) float64 {
		if class == classes-1 {
			return 0.5
		}
		return 1
	}, // truck is the last
	"half":  func(int, int) float64 { return 0.5 },
	"heavy": func(class, classes int) float64 { return 1 - float64(class)/float64(classes) },
}
