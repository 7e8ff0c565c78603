//! The API server of each version, alone on loopback.

use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::Version;

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn each_version_answers_and_keeps_what_it_was_told() {
    for version in Version::ALL {
        let mut server = ApiServer::start(version).await.unwrap();
        let kubectl = server.kubectl().clone();
        let said = kubectl.json(&["version"]).await.unwrap();
        assert_eq!(said["serverVersion"]["gitVersion"], version.name());
        kubectl.run(["create", "namespace", "kept"]).await.unwrap();
        server.pause().await;
        kubectl.run(["get", "namespace", "kept"]).await.unwrap_err();
        server.resume().await.unwrap();
        kubectl.run(["get", "namespace", "kept"]).await.unwrap();
        server.start_controllers().await.unwrap();
        kubectl.run(["delete", "namespace", "kept", "--timeout=60s"]).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn nothing_runs_on_when_it_is_dropped() {
    let server = ApiServer::start(Version::V1_36).await.unwrap();
    let folder = server.kubeconfig().parent().unwrap().to_owned();
    drop(server);
    let commands = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    let folder_name = folder.display().to_string();
    assert_eq!(commands.filter(|line| line.contains(&folder_name)).count(), 0);
    assert!(!folder.exists());
}
