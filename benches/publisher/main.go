// Publishes to a Pub/Sub server with Google's generated client: one message after the other, then a thousand in each request with
// several requests in flight. Prints JSON: milliseconds of a publish (publish_ms) and of a call that writes nothing (get_ms), which
// is what client and connection cost, and messages per second (batched_per_s).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"sync"
	"time"

	pubsub "cloud.google.com/go/pubsub/apiv1"
	"cloud.google.com/go/pubsub/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

const (
	perRequest = 1000
	inFlight   = 8
)

func main() {
	address := flag.String("address", "", "host:port of the server")
	project := flag.String("project", "", "project of the topic")
	messages := flag.Int("messages", 200, "messages one after the other")
	batched := flag.Int("batched", 200_000, "messages in batches")
	size := flag.Int("size", 256, "bytes of a message")
	flag.Parse()

	ctx := context.Background()
	if token := os.Getenv("TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	connection, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	client, err := pubsub.NewPublisherClient(ctx, option.WithGRPCConn(connection))
	check(err)
	topic := fmt.Sprintf("projects/%s/topics/t-%d", *project, time.Now().UnixNano())
	_, err = client.CreateTopic(ctx, &pubsubpb.Topic{Name: topic})
	check(err)

	message := &pubsubpb.PubsubMessage{Data: make([]byte, *size)}
	publish := func(count int) {
		request := &pubsubpb.PublishRequest{Topic: topic}
		for range count {
			request.Messages = append(request.Messages, message)
		}
		_, err := client.Publish(ctx, request)
		check(err)
	}
	alone := median(*messages, func() { publish(1) })
	get := median(*messages, func() {
		_, err := client.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: topic})
		check(err)
	})
	begun := time.Now()
	var senders sync.WaitGroup
	for range inFlight {
		senders.Go(func() {
			for range *batched / perRequest / inFlight {
				publish(perRequest)
			}
		})
	}
	senders.Wait()
	sent := *batched / perRequest / inFlight * inFlight * perRequest
	check(json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"publish_ms": alone, "get_ms": get, "batched_per_s": float64(sent) / time.Since(begun).Seconds(),
	}))
}

// The median of the milliseconds that `call` takes, the first ten calls not counted.
func median(count int, call func()) float64 {
	took := make([]float64, 0, count)
	for n := range count + 10 {
		begun := time.Now()
		call()
		if n >= 10 {
			took = append(took, float64(time.Since(begun).Microseconds())/1e3)
		}
	}
	sort.Float64s(took)
	return took[len(took)/2]
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
