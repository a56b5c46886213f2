// Package function logs the CloudEvents that it is sent.
package function

import (
	"context"
	"log"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	"github.com/cloudevents/sdk-go/v2/event"
)

func init() {
	functions.CloudEvent("HelloCloudEvent", HelloCloudEvent)
}

// message is the data of an event that brings a Pub/Sub message.
type message struct {
	Message struct {
		Data []byte `json:"data"`
	} `json:"message"`
}

// HelloCloudEvent logs the event's type and id, and of a Pub/Sub message its text.
func HelloCloudEvent(ctx context.Context, e event.Event) error {
	log.Printf("type: %s, id: %s", e.Type(), e.ID())
	if e.Type() == "google.cloud.pubsub.topic.v1.messagePublished" {
		var m message
		if err := e.DataAs(&m); err != nil {
			return err
		}
		log.Printf("text: %s", m.Message.Data)
	}
	return nil
}
