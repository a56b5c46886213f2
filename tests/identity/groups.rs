//! `gcloud identity groups`: members have what a group is given.

use anyhow::{Result, ensure};
use e2e::{REGION, Tanebi, holds};

use super::{ALICE, OWNER, deploy, status_for, within_a_second};
use crate::hostile::Client;

pub(super) fn groups_of_people() -> Result<()> {
    let tanebi = Tanebi::start()?;
    deploy(&tanebi, "f")?;
    Client::new(&tanebi, ALICE)?;
    Client::new(&tanebi, "bob@example.com")?;
    tanebi.script_all("gcloud identity groups create team@example.com --customer C0tanebi0 --display-name 'The team' --with-initial-owner empty")?;
    tanebi.script_all("gcloud identity groups create inner@example.com --customer C0tanebi0 --with-initial-owner empty")?;
    holds(&tanebi.script("gcloud identity groups describe team@example.com")?, "displayName: The team")?;
    tanebi.script_all(&format!("gcloud run services add-iam-policy-binding f --region {REGION} --member group:team@example.com --role roles/run.invoker"))?;
    ensure!(status_for(&tanebi, "f", ALICE)? == 403);
    let add = |group: &str, member: &str| {
        tanebi.script_all(&format!("gcloud identity groups memberships add --group-email {group}@example.com --member-email {member}"))
    };
    add("team", ALICE)?;
    within_a_second("a member is let in", || Ok(status_for(&tanebi, "f", ALICE)? == 200))?;
    ensure!(status_for(&tanebi, "f", "bob@example.com")? == 403);
    add("team", "inner@example.com")?;
    add("inner", "bob@example.com")?;
    within_a_second("a member of a group in it is let in", || Ok(status_for(&tanebi, "f", "bob@example.com")? == 200))?;
    let list = tanebi.script("gcloud identity groups memberships list --group-email team@example.com --format 'value(preferredMemberKey.id)'")?;
    ensure!(list.split_whitespace().collect::<Vec<_>>() == [ALICE, "inner@example.com"], "{list}");
    let who = tanebi.script("tanebi iam who-can invoke f")?;
    for part in [ALICE, "(in group:team@example.com)", OWNER] {
        holds(&who, part)?;
    }
    tanebi.script_all(&format!("gcloud identity groups memberships delete --group-email team@example.com --member-email {ALICE} --quiet"))?;
    within_a_second("who left is shut out", || Ok(status_for(&tanebi, "f", ALICE)? == 403))?;
    tanebi.script_all("gcloud identity groups delete team@example.com --quiet")?;
    within_a_second("a group that is gone has no members", || Ok(status_for(&tanebi, "f", "bob@example.com")? == 403))?;
    let manager =
        tanebi.script_failing("gcloud identity groups memberships add --group-email inner@example.com --member-email x@example.com --roles MANAGER")?;
    holds(&manager, "MANAGER is not served by this server")?;
    // Who may not set the policy changes no group.
    let refused = tanebi.shell_as(Some(ALICE), "gcloud identity groups create other@example.com --customer C0tanebi0 2>&1")?;
    ensure!(!refused.status.success());
    holds(&String::from_utf8_lossy(&refused.stdout), "resourcemanager.projects.setIamPolicy")
}
