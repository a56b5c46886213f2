package main

import (
	"context"
	"iter"
	"slices"
	"time"

	functionsapi "cloud.google.com/go/functions/apiv2"
	"cloud.google.com/go/functions/apiv2/functionspb"
	run "cloud.google.com/go/run/apiv2"
	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

// functions asks for functions and the services behind them, by gRPC and by REST.
func functions(ctx context.Context, w *world) {
	name := w.parent + "/functions/hello"
	var uri string
	for _, client := range []*functionsapi.FunctionClient{must(functionsapi.NewFunctionClient(ctx)), must(functionsapi.NewFunctionRESTClient(ctx))} {
		check("functions", names(client.ListFunctions(ctx, &functionspb.ListFunctionsRequest{Parent: w.parent}).All()), []string{name})
		one := must(client.GetFunction(ctx, &functionspb.GetFunctionRequest{Name: name}))
		check("a function", []string{one.State.String(), one.BuildConfig.EntryPoint, one.Environment.String()}, []string{"ACTIVE", "hello_http", "GEN_2"})
		_, err := client.GetFunction(ctx, &functionspb.GetFunctionRequest{Name: name + "x"})
		refused("no function", codes.NotFound, err)
		uri = one.ServiceConfig.Uri
		client.Close()
	}

	services := must(run.NewServicesClient(ctx))
	defer services.Close()
	service := must(services.GetService(ctx, &runpb.GetServiceRequest{Name: w.parent + "/services/hello"}))
	check("its service", service.Uri, uri)
	revisions := must(run.NewRevisionsRESTClient(ctx))
	defer revisions.Close()
	listed := names(revisions.ListRevisions(ctx, &runpb.ListRevisionsRequest{Parent: service.Name}).All())
	check("its revisions", slices.Contains(listed, service.LatestReadyRevision), true)
	before := service.LatestReadyRevision
	service.Template.Timeout = durationpb.New(22 * time.Second)
	service.Template.Revision = ""
	updated := must(must(services.UpdateService(ctx, &runpb.UpdateServiceRequest{Service: service})).Wait(ctx))
	check("an update", updated.Template.Timeout.Seconds, int64(22))
	check("a new revision", updated.LatestReadyRevision != before, true)
	w.url = uri
}

// names of all that a list has.
func names[T interface{ GetName() string }](all iter.Seq2[T, error]) []string {
	var found []string
	for one, err := range all {
		found = append(found, must(one, err).GetName())
	}
	return found
}
