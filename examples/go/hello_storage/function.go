// Package function is called when a file was uploaded to a bucket of Cloud Storage.
package function

import (
	"context"
	"log"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	"github.com/cloudevents/sdk-go/v2/event"
)

func init() {
	functions.CloudEvent("HelloStorage", HelloStorage)
}

// object is the data of an event of Cloud Storage, as far as it is used here.
type object struct {
	Bucket string `json:"bucket"`
	Name   string `json:"name"`
	Size   int64  `json:"size,string"`
}

// HelloStorage logs what happened to which object.
func HelloStorage(ctx context.Context, e event.Event) error {
	var data object
	if err := e.DataAs(&data); err != nil {
		return err
	}
	log.Printf("%s: gs://%s/%s, %d bytes", e.Type(), data.Bucket, data.Name, data.Size)
	return nil
}
