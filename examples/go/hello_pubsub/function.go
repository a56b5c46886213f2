// Package function is called for each message of a topic of Pub/Sub.
package function

import (
	"cmp"
	"context"
	"log"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	"github.com/cloudevents/sdk-go/v2/event"
)

func init() {
	functions.CloudEvent("HelloPubSub", HelloPubSub)
}

// published is the data of an event that brings a message.
type published struct {
	Message struct {
		Data []byte `json:"data"`
	} `json:"message"`
}

// HelloPubSub greets whom the message names.
func HelloPubSub(ctx context.Context, e event.Event) error {
	var data published
	if err := e.DataAs(&data); err != nil {
		return err
	}
	log.Printf("Hello, %s!", cmp.Or(string(data.Message.Data), "World"))
	return nil
}
