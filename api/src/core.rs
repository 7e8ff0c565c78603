//! The slices of Kubernetes kinds that the mesh reads.
//!
//! Tolerant: unknown fields are kept in `extra` wherever a typed value is written back, so that
//! nothing the user set is lost. Kubernetes validates these kinds itself; only shape is checked.

mod container;
mod endpoints;
mod owner;
mod pod;
mod service;
mod workload;

pub use container::{
    Capabilities, Container, ContainerPort, EnvVar, HttpGet, Lifecycle, LifecycleHandler, Probe,
    SecurityContext, VolumeMount,
};
pub use endpoints::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
pub use owner::Workload;
pub use pod::{
    Condition, ContainerStatus, Pod, PodIp, PodSecurityContext, PodSpec, PodStatus, Volume,
};
pub use service::{Service, ServicePort, ServiceSpec, TargetPort};
pub use workload::{
    ConfigMap, Deployment, Namespace, Node, PodTemplate, Secret, ServiceAccount, WorkloadSelector,
    WorkloadSpec,
};
