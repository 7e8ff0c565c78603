//! Pods in rehearsal: the API server judges them as it would any, and keeps none.

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lateen_cluster::api_server::ApiServer;
use serde_json::Value;

/// A client with all rights.
pub(crate) async fn client(server: &ApiServer) -> Client {
    let parsed = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(parsed, &options).await.unwrap();
    Client::try_from(config).unwrap()
}

/// The pod as it would be created, or why not. Fields that Kubernetes does not know, or finds
/// twice, are a reason.
pub(crate) async fn rehearse(
    client: &Client,
    namespace: &str,
    pod: &Value,
) -> Result<Value, String> {
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict&fieldManager=test"
    );
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(pod.to_string().into_bytes())
        .unwrap();
    client.request(request).await.map_err(|error| error.to_string())
}
