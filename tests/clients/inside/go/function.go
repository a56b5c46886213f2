// Package function uses Google's libraries with no configuration.
package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"

	"cloud.google.com/go/compute/metadata"
	"cloud.google.com/go/pubsub/v2"
	scheduler "cloud.google.com/go/scheduler/apiv1"
	"cloud.google.com/go/scheduler/apiv1/schedulerpb"
	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"cloud.google.com/go/storage"
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	"google.golang.org/api/idtoken"
)

type clients struct {
	project   string
	storage   *storage.Client
	pubsub    *pubsub.Client
	secrets   *secretmanager.Client
	scheduler *scheduler.CloudSchedulerClient
}

// Made while it loads; with ?new they are made in the call.
var shared, sharedError = newClients(context.Background())

func init() {
	functions.HTTP("Inside", inside)
}

func newClients(ctx context.Context) (*clients, error) {
	var c clients
	var failed [5]error
	c.project, failed[0] = metadata.ProjectIDWithContext(ctx)
	c.storage, failed[1] = storage.NewClient(ctx)
	c.pubsub, failed[2] = pubsub.NewClient(ctx, c.project)
	c.secrets, failed[3] = secretmanager.NewClient(ctx)
	c.scheduler, failed[4] = scheduler.NewCloudSchedulerClient(ctx)
	return &c, errors.Join(failed[:]...)
}

func inside(w http.ResponseWriter, r *http.Request) {
	if google := r.FormValue("google"); google != "" {
		answer, err := http.Get("https://" + google + "/")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
		return
	}
	c, err := shared, sharedError
	if r.URL.Query().Has("new") {
		c, err = newClients(r.Context())
	}
	var told map[string]any
	if err == nil {
		told, err = c.use(r.Context(), r.FormValue("name"), r.FormValue("bucket"), r.FormValue("other"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(told)
}

func (c *clients) use(ctx context.Context, name, bucket, other string) (map[string]any, error) {
	object := c.storage.Bucket(bucket).Object(name)
	to := object.NewWriter(ctx)
	fmt.Fprintf(to, "by %s", name)
	if err := to.Close(); err != nil {
		return nil, err
	}
	from, err := object.NewReader(ctx)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	content, err := io.ReadAll(from)
	if err != nil {
		return nil, err
	}
	message := &pubsub.Message{Data: []byte(name), Attributes: map[string]string{"by": "go"}}
	if _, err := c.pubsub.Publisher("inside").Publish(ctx, message).Get(ctx); err != nil {
		return nil, err
	}
	secret, err := c.secrets.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: "projects/" + c.project + "/secrets/inside/versions/latest"})
	if err != nil {
		return nil, err
	}
	jobs := []string{}
	for job, err := range c.scheduler.ListJobs(ctx, &schedulerpb.ListJobsRequest{Parent: "projects/" + c.project + "/locations/asia-northeast1"}).All() {
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, path.Base(job.Name))
	}
	caller, err := idtoken.NewClient(ctx, other)
	if err != nil {
		return nil, err
	}
	answer, err := caller.Get(other)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var greeting bytes.Buffer
	if _, err := greeting.ReadFrom(answer.Body); err != nil {
		return nil, err
	}
	return map[string]any{"object": string(content), "secret": string(secret.Payload.Data), "jobs": jobs, "greeting": greeting.String()}, nil
}
