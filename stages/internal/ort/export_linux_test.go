package ort

// What the tests of package ort_test look at from inside.
var (
	MissingLibraries = missingLibraries
	ReadSignals      = readSignals
	KeepSignals      = keepSignals
	ProviderOptions  = providerOptions
	VersionInName    = versionInName
	CheckVersion     = checkVersion
)

// SetHandler changes one signal's handler behind Go's back, as a C library does.
func SetHandler(sig int, handler, flags uintptr) error {
	return rtSigaction(sig, &sigaction{handler: handler, flags: flags}, nil)
}
