package table

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"cloud.google.com/go/functions/metadata"
	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	"github.com/cloudevents/sdk-go/v2/event"
)

func init() {
	functions.CloudEvent("Events", Events)
	// An event function has no name of its own in the framework: it serves every target that nothing else is named.
	if err := funcframework.RegisterEventFunctionContext(context.Background(), "/", Legacy); err != nil {
		panic(err)
	}
}

// Events writes down a CloudEvent.
func Events(ctx context.Context, e event.Event) error {
	line := map[string]any{
		"kind":    "cloudevent",
		"id":      e.ID(),
		"source":  e.Source(),
		"type":    e.Type(),
		"subject": nil,
		"time":    nil,
		"data":    written(e.Data()),
	}
	if subject := e.Subject(); subject != "" {
		line["subject"] = subject
	}
	if at := e.Time(); !at.IsZero() {
		line["time"] = at.Format(time.RFC3339Nano)
	}
	return json.NewEncoder(os.Stdout).Encode(line)
}

// written is data as JSON can hold it: what is no JSON is written as text.
func written(data []byte) any {
	if len(data) == 0 {
		return nil
	}
	if !json.Valid(data) {
		return string(data)
	}
	return json.RawMessage(data)
}

// Legacy writes down an event of before CloudEvents.
func Legacy(ctx context.Context, data json.RawMessage) error {
	about, err := metadata.FromContext(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"kind":      "event",
		"id":        about.EventID,
		"timestamp": about.Timestamp,
		"eventType": about.EventType,
		"resource":  about.Resource,
		"data":      data,
	})
}
