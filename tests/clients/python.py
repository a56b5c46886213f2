"""Google's Python libraries against the server that this shell is set up for; services `open` and `closed` are there."""

import os
import time

import google.auth
import google_crc32c
import google.auth.impersonated_credentials
from google.api_core import exceptions
from google.auth.transport.requests import AuthorizedSession
from google.cloud import artifactregistry_v1, iam_admin_v1, iam_credentials_v1, logging_v2, resourcemanager_v3, run_v2, scheduler_v1
from google.cloud import secretmanager, storage
from google.iam.v1.iam_policy_pb2 import GetIamPolicyRequest, SetIamPolicyRequest
from google.iam.v1.policy_pb2 import Binding, Policy

from checks import check, refused, told

REGION = "asia-northeast1"
credentials, project = google.auth.default()
parent = f"projects/{project}/locations/{REGION}"

for transport in ("grpc", "rest"):
    services, revisions = run_v2.ServicesClient(transport=transport), run_v2.RevisionsClient(transport=transport)
    name = f"{parent}/services/open"
    check("list", sorted(s.name for s in services.list_services(parent=parent)), [f"{parent}/services/closed", name])
    service = services.get_service(name=name)
    check("uri", service.uri.startswith("https://open-") and service.uri.endswith(".run.app"))
    concurrency = {"grpc": 33, "rest": 34}[transport]
    service.template.max_instance_request_concurrency = concurrency
    updated = services.update_service(service=service).result(timeout=120)
    check("update", updated.template.max_instance_request_concurrency, concurrency)
    check("the new revision is ready", updated.latest_ready_revision, updated.latest_created_revision)
    check("revisions", updated.latest_ready_revision in [r.name for r in revisions.list_revisions(parent=name)])
    service.etag = '"of-another-time"'
    refused("an old etag", exceptions.Conflict, lambda: services.update_service(service=service))
    policy = services.get_iam_policy(request=GetIamPolicyRequest(resource=name))
    check("policy", [(b.role, list(b.members)) for b in policy.bindings], [("roles/run.invoker", ["allUsers"])])
    check("set policy", list(services.set_iam_policy(request=SetIamPolicyRequest(resource=name, policy=policy)).bindings), list(policy.bindings))
    refused("not there", exceptions.NotFound, lambda: services.get_service(name=f"{name}x"))
    refused("a bad name", exceptions.BadRequest, lambda: services.create_service(parent=parent, service=run_v2.Service(), service_id="Not_A_Name"))
    projects = resourcemanager_v3.ProjectsClient(transport=transport)
    check("project", projects.get_project(name=f"projects/{project}").project_id, project)
    refused("another project", exceptions.Forbidden, lambda: projects.get_project(name="projects/somebody-elses"))
    repositories = artifactregistry_v1.ArtifactRegistryClient(transport=transport).list_repositories(parent=parent)
    check("repositories", [r.name.rsplit("/", 1)[1] for r in repositories], ["cloud-run-source-deploy"])

    jobs = scheduler_v1.CloudSchedulerClient(transport=transport)
    name, uri = f"{parent}/jobs/from-python", service.uri
    target = scheduler_v1.HttpTarget(uri=uri, http_method=scheduler_v1.HttpMethod.PUT, body=b"hello", headers={"X-Mine": "1"})
    job = jobs.create_job(parent=parent, job=scheduler_v1.Job(name=name, http_target=target, schedule="0 9 * * *", time_zone="Asia/Tokyo"))
    check("job", (job.name, job.state, job.attempt_deadline.seconds), (name, scheduler_v1.Job.State.ENABLED, 180))
    check("due at nine in Tokyo", (job.schedule_time.hour, job.schedule_time.minute), (0, 0))
    refused("a job twice", exceptions.Conflict, lambda: jobs.create_job(parent=parent, job=job))
    changed = scheduler_v1.Job(name=name, description="mine", schedule="* * * * *")
    job = jobs.update_job(job=changed, update_mask={"paths": ["description"]})
    check("only what is named changes", (job.description, job.schedule, job.http_target.body), ("mine", "0 9 * * *", b"hello"))
    check("pause", jobs.pause_job(name=name).state, scheduler_v1.Job.State.PAUSED)
    refused("paused twice", exceptions.FailedPrecondition if transport == "grpc" else exceptions.BadRequest, lambda: jobs.pause_job(name=name))
    check("resume", jobs.resume_job(name=name).state, scheduler_v1.Job.State.ENABLED)
    check("run", jobs.run_job(name=name).name, name)
    deadline = time.time() + 60
    while "status" not in (job := jobs.get_job(name=name)) and time.time() < deadline:
        time.sleep(0.2)
    check("it ran", ("status" in job, job.status.code, "last_attempt_time" in job), (True, 0, True))
    check("jobs", [j.name for j in jobs.list_jobs(parent=parent)], [name])
    jobs.delete_job(name=name)
    refused("a job that is gone", exceptions.NotFound, lambda: jobs.get_job(name=name))
    bad = scheduler_v1.Job(http_target={"uri": "http://127.0.0.1:1/"}, schedule="* * * * *")
    refused("this machine as a target", exceptions.BadRequest, lambda: jobs.create_job(parent=parent, job=bad))

for transport in ("grpc", "rest"):
    manager, secret_id = secretmanager.SecretManagerServiceClient(transport=transport), f"from-python-{transport}"
    made = manager.create_secret(parent=f"projects/{project}", secret_id=secret_id, secret={"replication": {"automatic": {}}, "labels": {"by": "python"}})
    for text in (b"first", b"second"):
        version = manager.add_secret_version(parent=made.name, payload={"data": text, "data_crc32c": google_crc32c.value(text)})
    check("version", version.name, f"{made.name}/versions/2")
    payload = manager.access_secret_version(name=f"projects/{project}/secrets/{secret_id}/versions/latest").payload
    check("payload", (payload.data, payload.data_crc32c), (b"second", google_crc32c.value(b"second")))
    made.version_aliases["prod"] = 1
    aliased = manager.update_secret(secret=made, update_mask={"paths": ["version_aliases"]})
    check("an alias", manager.access_secret_version(name=f"{made.name}/versions/prod").payload.data, b"first")
    refused("an old etag", exceptions.BadRequest,
            lambda: manager.delete_secret(request={"name": made.name, "etag": made.etag}))
    refused("a wrong checksum", exceptions.BadRequest,
            lambda: manager.add_secret_version(parent=made.name, payload={"data": b"x", "data_crc32c": 1}))
    check("versions", [v.name.rsplit("/", 1)[1] for v in manager.list_secret_versions(request={"parent": made.name, "page_size": 1})], ["2", "1"])
    check("destroyed", manager.destroy_secret_version(name=f"{made.name}/versions/1").state.name, "DESTROYED")
    refused("destroyed is gone", exceptions.BadRequest, lambda: manager.access_secret_version(name=f"{made.name}/versions/1"))
    found = manager.list_secrets(request={"parent": f"projects/{project}", "filter": f"labels.by=python AND name:{secret_id}"})
    check("a filter", [s.name for s in found], [made.name])
    manager.delete_secret(request={"name": made.name, "etag": aliased.etag})
    refused("deleted", exceptions.NotFound, lambda: manager.get_secret(name=made.name))

accounts, signer = iam_admin_v1.IAMClient(), iam_credentials_v1.IAMCredentialsClient()
email = f"from-python@{project}.iam.gserviceaccount.com"
account, wildcard = f"projects/{project}/serviceAccounts/{email}", f"projects/-/serviceAccounts/{email}"
check("account", accounts.create_service_account(request={"name": f"projects/{project}", "account_id": "from-python"}).email, email)
check("key", accounts.create_service_account_key(request={"name": account}).name.startswith(f"{account}/keys/"))
creator = Binding(role="roles/iam.serviceAccountTokenCreator", members=["user:developer@tanebi.local"])
accounts.set_iam_policy(request=SetIamPolicyRequest(resource=account, policy=Policy(bindings=[creator])))
check("access token", bool(signer.generate_access_token(name=wildcard, scope=["https://www.googleapis.com/auth/cloud-platform"]).access_token))
check("ID token", signer.generate_id_token(name=wildcard, audience="https://example.com").token.count("."), 2)
check("signature", len(signer.sign_blob(name=wildcard, payload=b"x").signed_blob), 256)

client = storage.Client()
bucket = client.create_bucket("from-python-bucket", location=REGION)
bucket.blob("a/text").upload_from_string("hello")
check("download", bucket.blob("a/text").download_as_text(), "hello")
content = os.urandom(5 << 20)
bucket.blob("big", chunk_size=1 << 20).upload_from_string(content)
check("a resumable upload", bucket.blob("big").download_as_bytes() == content)
check("a range", bucket.blob("big").download_as_bytes(start=10, end=19), content[10:20])
check("list", [b.name for b in client.list_blobs(bucket, prefix="a/")], ["a/text"])
bucket.copy_blob(bucket.blob("a/text"), bucket, "copy")
bucket.blob("both").compose([bucket.blob("a/text"), bucket.blob("copy")])
check("compose", bucket.blob("both").download_as_bytes(), b"hellohello")
refused("a generation", exceptions.PreconditionFailed, lambda: bucket.blob("copy").upload_from_string("x", if_generation_match=0))
bucket.delete(force=True)
refused("deleted", exceptions.NotFound, lambda: client.get_bucket("from-python-bucket"))

closed = run_v2.ServicesClient().get_service(name=f"{parent}/services/closed").uri
impersonated = google.auth.impersonated_credentials.Credentials(
    source_credentials=credentials, target_principal=email, target_scopes=["https://www.googleapis.com/auth/cloud-platform"]
)
caller = AuthorizedSession(google.auth.impersonated_credentials.IDTokenCredentials(impersonated, target_audience=closed, include_email=True))
check("without the role", caller.get(closed).status_code, 403)
invoker = Policy(bindings=[Binding(role="roles/run.invoker", members=[f"serviceAccount:{email}"])])
run_v2.ServicesClient().set_iam_policy(request=SetIamPolicyRequest(resource=f"{parent}/services/closed", policy=invoker))
time.sleep(1)
check("with the role", caller.get(closed).text, "Hello World!")

entries, deadline = [], time.time() + 20
while not entries and time.time() < deadline:
    asked = f'logName="projects/{project}/logs/run.googleapis.com%2Frequests" AND resource.labels.service_name="closed" AND httpRequest.status=403'
    entries = list(logging_v2.Client().list_entries(filter_=asked))
    time.sleep(0.2)
check("the log tells of the refused call", entries[0].http_request["requestUrl"].rstrip("/"), closed)

told()
