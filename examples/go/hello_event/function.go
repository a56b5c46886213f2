// Package function is a background function, as they were before CloudEvents.
package function

import (
	"context"
	"log"

	"cloud.google.com/go/functions/metadata"
	// The program that serves this function needs the framework, though the function itself does not.
	_ "github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
)

// Message is a Pub/Sub message; other events leave its data empty.
type Message struct {
	Data []byte `json:"data"`
}

// HelloEvent logs the event's type and id, and of a Pub/Sub message its text.
func HelloEvent(ctx context.Context, m Message) error {
	event, err := metadata.FromContext(ctx)
	if err != nil {
		return err
	}
	log.Printf("type: %s, id: %s", event.EventType, event.EventID)
	if event.EventType == "google.pubsub.topic.publish" {
		log.Printf("text: %s", m.Data)
	}
	return nil
}
