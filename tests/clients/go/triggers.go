package main

import (
	"context"
	"path"
	"strings"

	eventarc "cloud.google.com/go/eventarc/apiv1"
	"cloud.google.com/go/eventarc/apiv1/eventarcpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// triggers makes triggers of Eventarc that call hello, and asks for the providers of events, by gRPC and by REST.
func triggers(ctx context.Context, w *world) {
	name := w.parent + "/triggers/from-go"
	wanted := &eventarcpb.Trigger{
		Name:         name,
		EventFilters: []*eventarcpb.EventFilter{{Attribute: "type", Value: "google.cloud.pubsub.topic.v1.messagePublished"}},
		Destination: &eventarcpb.Destination{Descriptor_: &eventarcpb.Destination_CloudRun{
			CloudRun: &eventarcpb.CloudRun{Service: "hello", Region: region, Path: "/in"},
		}},
		Labels: map[string]string{"a": "b"},
	}
	// By REST 409 is all that is known.
	for _, by := range []struct {
		client *eventarc.Client
		taken  codes.Code
	}{{must(eventarc.NewClient(ctx)), codes.AlreadyExists}, {must(eventarc.NewRESTClient(ctx)), codes.Aborted}} {
		client := by.client
		create := func(trigger *eventarcpb.Trigger) (*eventarcpb.Trigger, error) {
			made, err := client.CreateTrigger(ctx, &eventarcpb.CreateTriggerRequest{Parent: w.parent, TriggerId: "from-go", Trigger: trigger})
			if err != nil {
				return nil, err
			}
			return made.Wait(ctx)
		}
		made := must(create(wanted))
		check("a trigger", []string{made.Name, made.Destination.GetCloudRun().Service, made.Labels["a"]}, []string{name, "hello", "b"})
		check("its transport", strings.HasPrefix(made.Transport.GetPubsub().Topic, "projects/"+w.project+"/topics/eventarc-"+region+"-from-go-"), true)
		_, err := create(wanted)
		refused("a trigger twice", by.taken, err)
		none := proto.Clone(wanted).(*eventarcpb.Trigger)
		none.EventFilters = nil
		_, err = create(none)
		refused("no type", codes.InvalidArgument, err)
		check("it is there", must(client.GetTrigger(ctx, &eventarcpb.GetTriggerRequest{Name: name})).Uid, made.Uid)
		check("triggers", names(client.ListTriggers(ctx, &eventarcpb.ListTriggersRequest{Parent: w.parent}).All()), []string{name})
		change := &eventarcpb.UpdateTriggerRequest{
			Trigger:    &eventarcpb.Trigger{Name: name, Labels: map[string]string{"c": "d"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
		}
		changed := must(must(client.UpdateTrigger(ctx, change)).Wait(ctx))
		check("only what is named changes", []string{changed.Labels["c"], changed.Labels["a"], changed.Destination.GetCloudRun().Path}, []string{"d", "", "/in"})
		_, err = client.DeleteTrigger(ctx, &eventarcpb.DeleteTriggerRequest{Name: name, Etag: made.Etag})
		refused("an old etag", codes.Aborted, err)
		check("deleted", must(must(client.DeleteTrigger(ctx, &eventarcpb.DeleteTriggerRequest{Name: name})).Wait(ctx)).Name, name)
		_, err = client.GetTrigger(ctx, &eventarcpb.GetTriggerRequest{Name: name})
		refused("it is gone", codes.NotFound, err)

		providers := names(client.ListProviders(ctx, &eventarcpb.ListProvidersRequest{Parent: w.parent}).All())
		for at := range providers {
			providers[at] = path.Base(providers[at])
		}
		check("providers", providers, []string{"cloudaudit.googleapis.com", "pubsub.googleapis.com", "storage.googleapis.com"})
		provider := must(client.GetProvider(ctx, &eventarcpb.GetProviderRequest{Name: w.parent + "/providers/storage.googleapis.com"}))
		check("a provider", len(provider.EventTypes), 4)
		check("channels", names(client.ListChannels(ctx, &eventarcpb.ListChannelsRequest{Parent: w.parent}).All()), []string(nil))
		_, err = client.GetChannel(ctx, &eventarcpb.GetChannelRequest{Name: w.parent + "/channels/c"})
		refused("no channel", codes.NotFound, err)
		_, err = client.CreateChannel(ctx, &eventarcpb.CreateChannelRequest{Parent: w.parent, ChannelId: "c", Channel: &eventarcpb.Channel{}})
		refused("a channel", codes.InvalidArgument, err)
		client.Close()
	}
}
