package main

import (
	"context"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
)

// secrets and their versions.
func secrets(ctx context.Context, w *world) {
	client := must(secretmanager.NewClient(ctx))
	defer client.Close()
	automatic := &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}}}
	secret := must(client.CreateSecret(ctx, &secretmanagerpb.CreateSecretRequest{Parent: "projects/" + w.project, SecretId: "go-secret",
		Secret: &secretmanagerpb.Secret{Replication: automatic}}))
	for _, text := range []string{"first", "second"} {
		must(client.AddSecretVersion(ctx, &secretmanagerpb.AddSecretVersionRequest{Parent: secret.Name, Payload: &secretmanagerpb.SecretPayload{Data: []byte(text)}}))
	}
	read := func(version string) (string, error) {
		answer, err := client.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: secret.Name + "/versions/" + version})
		return string(answer.GetPayload().GetData()), err
	}
	check("a version by number", must(read("1")), "first")
	check("the latest version", must(read("latest")), "second")
	check("versions", names(client.ListSecretVersions(ctx, &secretmanagerpb.ListSecretVersionsRequest{Parent: secret.Name}).All()),
		[]string{secret.Name + "/versions/2", secret.Name + "/versions/1"})
	check("secrets", names(client.ListSecrets(ctx, &secretmanagerpb.ListSecretsRequest{Parent: "projects/" + w.project}).All()), []string{secret.Name})
	disabled := must(client.DisableSecretVersion(ctx, &secretmanagerpb.DisableSecretVersionRequest{Name: secret.Name + "/versions/2"}))
	check("disabled", disabled.State, secretmanagerpb.SecretVersion_DISABLED)
	_, err := read("2")
	refused("what is disabled", codes.FailedPrecondition, err)
	destroyed := must(client.DestroySecretVersion(ctx, &secretmanagerpb.DestroySecretVersionRequest{Name: secret.Name + "/versions/1"}))
	check("destroyed", destroyed.State, secretmanagerpb.SecretVersion_DESTROYED)
	check("deleted", client.DeleteSecret(ctx, &secretmanagerpb.DeleteSecretRequest{Name: secret.Name}), nil)
	_, err = client.GetSecret(ctx, &secretmanagerpb.GetSecretRequest{Name: secret.Name})
	refused("it is gone", codes.NotFound, err)
}
