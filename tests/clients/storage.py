"""Google's Python library for Cloud Storage against the server that this shell is set up for."""

import datetime
import io
import json
import os
import tempfile

import google.auth
import requests
from google.api_core import exceptions
from google.cloud import iam_admin_v1, storage
from google.cloud.storage import transfer_manager
from google.oauth2 import service_account

from checks import check, refused, told

_, project = google.auth.default()
client = storage.Client()
hour = datetime.timedelta(hours=1)

# Buckets: what their owners set.
bucket = client.bucket("from-python-storage")
bucket.versioning_enabled = True
bucket.labels = {"team": "a"}
bucket.cors = [{"origin": ["https://example.com"], "method": ["GET"], "responseHeader": ["x-a"], "maxAgeSeconds": 60}]
bucket.add_lifecycle_delete_rule(age=30, number_of_newer_versions=3)
bucket.add_lifecycle_set_storage_class_rule("COLDLINE", age=10)
bucket.create(location="asia-northeast1")
bucket.reload()
check("versioning", bucket.versioning_enabled)
check("soft deletion", bucket.soft_delete_policy.retention_duration_seconds, 7 * 24 * 3600)
check("lifecycle", [rule["action"]["type"] for rule in bucket.lifecycle_rules], ["Delete", "SetStorageClass"])
bucket.labels = {"team": "b"}
bucket.patch()
check("labels", client.get_bucket(bucket.name).labels, {"team": "b"})
check("permissions", bucket.test_iam_permissions(["storage.objects.get", "storage.buckets.delete"]), ["storage.objects.get", "storage.buckets.delete"])

# Versions, soft deletion, metadata.
blob = bucket.blob("a/text")
blob.metadata = {"k": "v"}
blob.content_language = "ja"
blob.upload_from_string("one", content_type="text/plain", checksum="crc32c")
first = blob.generation
blob.upload_from_string("two", if_generation_match=first, checksum="md5")
check("a generation", bucket.blob("a/text", generation=first).download_as_text(), "one")
check("versions", [b.generation for b in client.list_blobs(bucket, versions=True)], [first, blob.generation])
refused("another generation", exceptions.PreconditionFailed, lambda: blob.upload_from_string("x", if_generation_match=first))
blob.reload()
blob.metadata = {"k": None, "l": "w"}
blob.custom_time = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
blob.patch(if_metageneration_match=blob.metageneration)
check("metadata", (blob.metadata, blob.metageneration), ({"l": "w"}, 2))
bucket.delete_blob("a/text", generation=first)
check("soft-deleted", [b.generation for b in client.list_blobs(bucket, soft_deleted=True)], [first])
bucket.restore_blob("a/text", generation=first)
check("restored", blob.bucket.blob("a/text").download_as_text(), "one")
for name in ("d/1", "d/e/2", "f.csv"):
    bucket.blob(name).upload_from_string("x")
listed = client.list_blobs(bucket, delimiter="/", prefix="d/", page_size=1)
check("names and prefixes", ([b.name for b in listed], sorted(listed.prefixes)), (["d/1"], ["d/e/"]))
check("a glob", [b.name for b in client.list_blobs(bucket, match_glob="**.csv")], ["f.csv"])
check("offsets", [b.name for b in client.list_blobs(bucket, start_offset="d/e", end_offset="f")], ["d/e/2"])

# Copies and compositions.
bucket.copy_blob(bucket.blob("f.csv"), bucket, "copy")
both = bucket.blob("both")
both.compose([bucket.blob("d/1"), bucket.blob("copy")])
check("composed", (both.download_as_bytes(), both.component_count, both.md5_hash), (b"xx", 2, None))
other = client.create_bucket("from-python-storage-2", location="us")
big = bucket.blob("big")
content = os.urandom(3 << 20)
big.upload_from_file(io.BytesIO(content), size=len(content))
token, done, total = other.blob("big").rewrite(big)
check("a rewrite at once", (token, done, total), (None, len(content), len(content)))
big.update_storage_class("NEARLINE")
check("a class", bucket.get_blob("big").storage_class, "NEARLINE")
bucket.rename_blob(bucket.blob("copy"), "renamed")
check("renamed", bucket.get_blob("copy"), None)
moved = bucket.move_blob(bucket.blob("renamed"), "moved", if_generation_match=0)
check("moved in one step", (moved.name, bucket.get_blob("renamed"), bucket.get_blob("moved").download_as_bytes()), ("moved", None, b"x"))
refused("moved onto what is there", exceptions.PreconditionFailed, lambda: bucket.move_blob(moved, "both", if_generation_match=0))
bucket.move_blob(moved, "renamed")

# Bytes: resumable, in parts, ranges, packed, hashes.
resumed = bucket.blob("resumed", chunk_size=256 << 10)
resumed.upload_from_string(content)
check("resumable", resumed.download_as_bytes() == content)
check("a range", resumed.download_as_bytes(start=10, end=19), content[10:20])
with tempfile.NamedTemporaryFile() as file:
    file.write(content * 5)
    file.flush()
    transfer_manager.upload_chunks_concurrently(file.name, bucket.blob("parts"), chunk_size=5 << 20, worker_type=transfer_manager.THREAD)
with tempfile.NamedTemporaryFile() as file:
    transfer_manager.download_chunks_concurrently(bucket.blob("parts"), file.name, chunk_size=4 << 20, worker_type=transfer_manager.THREAD)
    check("parts at once", open(file.name, "rb").read() == content * 5)
wrong = bucket.blob("wrong")
wrong.md5_hash = "AAAAAAAAAAAAAAAAAAAAAA=="
refused("a wrong hash", exceptions.BadRequest, lambda: wrong.upload_from_string("x"))

# Batches.
with client.batch():
    for name in ("d/1", "d/e/2"):
        bucket.blob(name).delete()
check("a batch", [b.name for b in client.list_blobs(bucket, prefix="d/")], [])

# Holds and retention.
held = bucket.blob("held")
held.upload_from_string("x")
held.temporary_hold = True
held.patch()
refused("held", exceptions.Forbidden, held.delete)
held.temporary_hold = False
held.patch()
held.delete()
kept = client.create_bucket("from-python-storage-3", enable_object_retention=True)
kept.retention_period = 3600
kept.patch()
retained = kept.blob("o")
retained.upload_from_string("x")
retained.reload()
check("retained", retained.retention_expiration_time > datetime.datetime.now(datetime.timezone.utc))
refused("retained", exceptions.Forbidden, retained.delete)
kept.lock_retention_policy()
kept.retention_period = 10
refused("locked", exceptions.Forbidden, kept.patch)

# Signed URLs and forms, by a key of an account made here.
email = f"signer@{project}.iam.gserviceaccount.com"
accounts = iam_admin_v1.IAMClient()
accounts.create_service_account(request={"name": f"projects/{project}", "account_id": "signer"})
key = accounts.create_service_account_key(request={"name": f"projects/{project}/serviceAccounts/{email}"})
signer = service_account.Credentials.from_service_account_info(json.loads(key.private_key_data))
policy = bucket.get_iam_policy()
policy.bindings.append({"role": "roles/storage.objectAdmin", "members": [f"serviceAccount:{email}"]})
bucket.set_iam_policy(policy)
for version in ("v2", "v4"):
    url = bucket.blob("signed").generate_signed_url(expiration=hour, method="PUT", version=version, credentials=signer, content_type="text/plain")
    check(f"{version} PUT", requests.put(url, data=b"by url", headers={"Content-Type": "text/plain"}, timeout=30).status_code, 200)
    url = bucket.blob("signed").generate_signed_url(expiration=hour, version=version, credentials=signer, response_disposition="attachment")
    answer = requests.get(url, timeout=30)
    check(f"{version} GET", (answer.content, answer.headers["Content-Disposition"]), (b"by url", "attachment"))
    check(f"{version} of another", requests.get(url.replace("/signed", "/f.csv"), timeout=30).status_code, 403)
url = bucket.blob("signed").generate_signed_url(expiration=hour, version="v4", credentials=signer, virtual_hosted_style=True)
check("the bucket's host", requests.get(url, timeout=30).content, b"by url")
url = bucket.blob("resumed-by-url").create_resumable_upload_session(content_type="text/plain")
check("a session", requests.put(url, data=b"x" * 10, timeout=30).status_code, 200)
form = client.generate_signed_post_policy_v4(bucket.name, "form", hour, conditions=[["content-length-range", 0, 10]], credentials=signer)
check("a form", requests.post(form["url"], data=form["fields"], files={"file": ("f", b"by form")}, timeout=30).status_code, 204)
check("its object", bucket.blob("form").download_as_bytes(), b"by form")

other.delete(force=True)
check("buckets", sorted(b.name for b in client.list_buckets(prefix="from-python-storage")), [bucket.name, kept.name])
told()
