package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
)

// messages: topics and subscriptions, both ways of delivery, order.
func messages(ctx context.Context, w *world) {
	client := must(pubsub.NewClient(ctx, w.project))
	defer client.Close()
	topics, subscriptions := client.TopicAdminClient, client.SubscriptionAdminClient
	name := "projects/" + w.project + "/topics/go-top"
	topic := must(topics.CreateTopic(ctx, &pubsubpb.Topic{Name: name, Labels: map[string]string{"by": "go"}}))
	check("a topic", must(topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: name})).Labels, topic.Labels)
	check("topics", names(topics.ListTopics(ctx, &pubsubpb.ListTopicsRequest{Project: "projects/" + w.project}).All()), []string{name})
	_, err := topics.CreateTopic(ctx, &pubsubpb.Topic{Name: name})
	refused("a topic twice", codes.AlreadyExists, err)
	_, err = client.Publisher("none").Publish(ctx, &pubsub.Message{Data: []byte("x")}).Get(ctx)
	refused("no topic", codes.NotFound, err)
	subscription := func(id string, settings *pubsubpb.Subscription) string {
		settings.Name, settings.Topic = "projects/"+w.project+"/subscriptions/"+id, name
		return must(subscriptions.CreateSubscription(ctx, settings)).Name
	}

	// A stream, with attributes; what is refused once comes again.
	sub := subscription("go-sub", &pubsubpb.Subscription{AckDeadlineSeconds: 20})
	publisher := client.Publisher(name)
	id := must(publisher.Publish(ctx, &pubsub.Message{Data: []byte("夏の星"), Attributes: map[string]string{"k": "v"}}).Get(ctx))
	var seen []*pubsub.Message
	receive(ctx, client.Subscriber(sub), func(m *pubsub.Message) bool {
		seen = append(seen, m)
		if len(seen) == 1 {
			m.Nack()
			return false
		}
		m.Ack()
		return true
	})
	check("a message", []any{seen[1].ID, string(seen[1].Data), seen[1].Attributes}, []any{id, "夏の星", map[string]string{"k": "v"}})

	// Many, few at a time.
	const count = 200
	publish(ctx, publisher, func(int) string { return "" })
	slow := client.Subscriber(sub)
	slow.ReceiveSettings.MaxOutstandingMessages = 5
	var held, most atomic.Int32
	got := map[int]int{}
	var lock sync.Mutex
	receive(ctx, slow, func(m *pubsub.Message) bool {
		now := held.Add(1)
		defer held.Add(-1)
		time.Sleep(5 * time.Millisecond)
		lock.Lock()
		defer lock.Unlock()
		most.Store(max(most.Load(), now))
		got[must(strconv.Atoi(string(m.Data)))]++
		m.Ack()
		return len(got) == count
	})
	check("each once", len(got), count)
	check("flow control", most.Load() <= 5, true)

	// In order by key.
	ordered := subscription("go-ordered", &pubsubpb.Subscription{EnableMessageOrdering: true})
	publisher.EnableMessageOrdering = true
	publish(ctx, publisher, func(n int) string { return []string{"a", "b"}[n%2] })
	byKey, total := map[string][]int{}, 0
	receive(ctx, client.Subscriber(ordered), func(m *pubsub.Message) bool {
		lock.Lock()
		defer lock.Unlock()
		byKey[m.OrderingKey] = append(byKey[m.OrderingKey], must(strconv.Atoi(string(m.Data))))
		total++
		m.Ack()
		return total == count
	})
	check("in order", slices.IsSorted(byKey["a"]) && slices.IsSorted(byKey["b"]), true)
	check("of both keys", []int{len(byKey["a"]), len(byKey["b"])}, []int{count / 2, count / 2})

	// Pushed; that it came is seen from outside.
	token := &pubsubpb.PushConfig_OidcToken_{OidcToken: &pubsubpb.PushConfig_OidcToken{ServiceAccountEmail: w.account, Audience: w.url}}
	subscription("go-push", &pubsubpb.Subscription{PushConfig: &pubsubpb.PushConfig{PushEndpoint: w.url, AuthenticationMethod: token}})
	must(publisher.Publish(ctx, &pubsub.Message{Data: []byte("pushed")}).Get(ctx))
	listed := names(subscriptions.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{Project: "projects/" + w.project}).All())
	slices.Sort(listed)
	check("subscriptions", strings.Join(listed, " "), strings.Join([]string{ordered, strings.Replace(sub, "go-sub", "go-push", 1), sub}, " "))
	check("deleted", subscriptions.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: sub}), nil)
	_, err = subscriptions.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: sub})
	refused("it is gone", codes.NotFound, err)
	publisher.Stop()
}

// publish sends two hundred numbers at once, each with the key of its number.
func publish(ctx context.Context, publisher *pubsub.Publisher, key func(int) string) {
	var results []*pubsub.PublishResult
	for n := range 200 {
		results = append(results, publisher.Publish(ctx, &pubsub.Message{Data: []byte(strconv.Itoa(n)), OrderingKey: key(n)}))
	}
	for _, result := range results {
		must(result.Get(ctx))
	}
}

// receive streams until take says that it has all.
func receive(ctx context.Context, subscriber *pubsub.Subscriber, take func(*pubsub.Message) bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	check("the stream's end", subscriber.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		if take(m) {
			cancel()
		}
	}), nil)
}
