package main

// Importing it makes the URLs of S3, Google Cloud Storage and Azure known.
import _ "sela/jobs/sela/stores"
