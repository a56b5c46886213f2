package main

import (
	"context"

	scheduler "cloud.google.com/go/scheduler/apiv1"
	"cloud.google.com/go/scheduler/apiv1/schedulerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// jobs of Cloud Scheduler that call hello.
func jobs(ctx context.Context, w *world) {
	client := must(scheduler.NewCloudSchedulerClient(ctx))
	defer client.Close()
	name := w.parent + "/jobs/go-job"
	target := &schedulerpb.Job_HttpTarget{HttpTarget: &schedulerpb.HttpTarget{Uri: w.url, HttpMethod: schedulerpb.HttpMethod_POST,
		Body: []byte(`{"name":"job"}`), Headers: map[string]string{"Content-Type": "application/json"},
		AuthorizationHeader: &schedulerpb.HttpTarget_OidcToken{OidcToken: &schedulerpb.OidcToken{ServiceAccountEmail: w.account, Audience: w.url}}}}
	create := &schedulerpb.CreateJobRequest{Parent: w.parent, Job: &schedulerpb.Job{Name: name, Target: target, Schedule: "0 9 * * *", TimeZone: "Asia/Tokyo"}}
	job := must(client.CreateJob(ctx, create))
	check("a job", []any{job.Name, job.State.String(), job.AttemptDeadline.Seconds}, []any{name, "ENABLED", int64(180)})
	check("due at nine in Tokyo", job.ScheduleTime.Seconds%86400, int64(0))
	check("jobs", names(client.ListJobs(ctx, &schedulerpb.ListJobsRequest{Parent: w.parent}).All()), []string{name})
	_, err := client.CreateJob(ctx, create)
	refused("a job twice", codes.AlreadyExists, err)
	_, err = client.CreateJob(ctx, &schedulerpb.CreateJobRequest{Parent: w.parent, Job: &schedulerpb.Job{Target: target, Schedule: "61 * * * *"}})
	refused("a bad schedule", codes.InvalidArgument, err)
	check("paused", must(client.PauseJob(ctx, &schedulerpb.PauseJobRequest{Name: name})).State, schedulerpb.Job_PAUSED)
	_, err = client.PauseJob(ctx, &schedulerpb.PauseJobRequest{Name: name})
	refused("paused twice", codes.FailedPrecondition, err)
	check("resumed", must(client.ResumeJob(ctx, &schedulerpb.ResumeJobRequest{Name: name})).State, schedulerpb.Job_ENABLED)
	must(client.RunJob(ctx, &schedulerpb.RunJobRequest{Name: name}))
	eventually("it runs", func() bool {
		job = must(client.GetJob(ctx, &schedulerpb.GetJobRequest{Name: name}))
		return job.Status != nil && job.LastAttemptTime != nil
	})
	check("it ran well", job.Status.Code, int32(0))
	change := &schedulerpb.UpdateJobRequest{Job: &schedulerpb.Job{Name: name, Schedule: "every monday 09:00"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"schedule"}}}
	changed := must(client.UpdateJob(ctx, change))
	check("only what is named changes", []string{changed.Schedule, changed.TimeZone}, []string{"every monday 09:00", "Asia/Tokyo"})
	check("deleted", client.DeleteJob(ctx, &schedulerpb.DeleteJobRequest{Name: name}), nil)
	_, err = client.GetJob(ctx, &schedulerpb.GetJobRequest{Name: name})
	refused("it is gone", codes.NotFound, err)
}
