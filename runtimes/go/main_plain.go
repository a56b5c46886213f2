// The program around a function that is found by its name: its type says what kind of function it is.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	userfunction "example.com/function"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	cloudevents "github.com/cloudevents/sdk-go/v2"
)

func register(ctx context.Context, target interface{}) error {
	switch target := target.(type) {
	case func(http.ResponseWriter, *http.Request):
		return funcframework.RegisterHTTPFunctionContext(ctx, "/", target)
	case func(context.Context, cloudevents.Event) error:
		return funcframework.RegisterCloudEventFunctionContext(ctx, "/", target)
	default:
		return funcframework.RegisterEventFunctionContext(ctx, "/", target)
	}
}

func main() {
	if err := register(context.Background(), userfunction.Target); err != nil {
		log.Fatalf("Function failed to register: %v\n", err)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	if err := funcframework.Start(port); err != nil {
		log.Fatalf("Function failed to start: %v\n", err)
	}
}
