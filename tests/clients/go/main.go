// Google's Go libraries against the server that this shell is set up for; the function hello is there.
//
// Arguments: a key file of a service account that may read and write objects, and the account that calls services.
package main

import (
	"context"
	"log"
	"os"

	"golang.org/x/oauth2/google"
)

const region = "asia-northeast1"

// world is what all parts share.
type world struct {
	project, parent, url, keyFile, account string
}

func main() {
	ctx := context.Background()
	// By the variable, as user credentials name no project.
	project := os.Getenv("GOOGLE_CLOUD_PROJECT")
	if _, err := google.FindDefaultCredentials(ctx); err != nil {
		log.Fatal(err)
	}
	w := &world{project: project, parent: "projects/" + project + "/locations/" + region, keyFile: os.Args[1], account: os.Args[2]}
	functions(ctx, w)
	messages(ctx, w)
	objects(ctx, w)
	jobs(ctx, w)
	secrets(ctx, w)
	triggers(ctx, w)
	told()
}
