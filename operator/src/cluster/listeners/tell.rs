//! Hands what was found over to the brokers, by way of their controller, and says what came of it.
//!
//! Promise: nobody is asked where there is nothing new; what the controller was not told is not claimed in the
//! status.

use super::find::{Facts, Findings, Place, Told, news, told};
use crate::admin::{self, AdminError};
use crate::cluster::validate::ValidCluster;
use crate::context::Context;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse};

/// Tells the controller what it does not know yet, and puts the status together. Says also whether it is worth
/// coming back soon.
pub async fn tell(
    context: &Context,
    cluster: &ValidCluster,
    brokers: i32,
    facts: &Facts,
    findings: &Findings,
    image: Option<&Image>,
) -> (Told, bool) {
    let trouble = match image {
        Some(image) => hand_over(context, image, findings).await.err(),
        None => None,
    };
    if let Some(trouble) = &trouble {
        tracing::warn!(namespace = %cluster.namespace, cluster = %cluster.name, trouble, "the controller was not told how clients reach the brokers; it is tried again");
    }
    let place = Place {
        cluster: &cluster.name,
        namespace: &cluster.namespace,
        domain: &cluster.spec.cluster_domain,
        brokers,
    };
    let told = told(
        &place,
        &cluster.listeners,
        facts,
        findings,
        image,
        trouble.as_deref(),
    );
    (told, trouble.is_some())
}

async fn hand_over(context: &Context, image: &Image, findings: &Findings) -> Result<(), String> {
    let brokers = news(image, findings);
    if brokers.is_empty() {
        return Ok(());
    }
    let why = |text: String| format!("the controller, which could not be told: {text}");
    if !image.brokers.values().any(|broker| !broker.fenced) {
        return Err(why("no broker serves".to_owned()));
    }
    if !context.leadership.is_held() {
        return Err(why(AdminError::NotLeader.to_string()));
    }
    for told in &brokers {
        for (listener, endpoint) in &told.listeners {
            let endpoint = endpoint.as_ref().map(ToString::to_string);
            tracing::info!(broker = %told.broker, %listener, endpoint = endpoint.as_deref().unwrap_or("not known"), "clients are told how to reach a broker");
        }
    }
    let answer = admin::ask(image, AdminRequest::SetEndpoints { brokers }).await;
    match answer.map_err(|error| why(error.to_string()))? {
        AdminResponse::SetEndpoints(outcomes) => {
            let refused = outcomes.into_iter().find(|(_, outcome)| !outcome.is_ok());
            match refused {
                Some((_, outcome)) => Err(why(outcome.message.unwrap_or_default())),
                None => Ok(()),
            }
        }
        _ => Err(why("it gave an answer to another question".to_owned())),
    }
}
