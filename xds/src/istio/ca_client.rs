//! Client of `istio.v1.auth.IstioCertificateService`.
//!
//! Generic over the gRPC transport, so that the caller brings its own TLS and its own metadata
//! (bearer token, `ClusterID`). No retries: the caller knows its schedule.

use super::{CERTIFICATE_SERVICE, CREATE_CERTIFICATE};
use super::{IstioCertificateRequest, IstioCertificateResponse};
use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::{GrpcMethod, Request, Response, Status};
use tonic_prost::ProstCodec;

/// Asks a certificate authority for certificates.
#[derive(Debug, Clone)]
pub struct CertificateClient<T> {
    inner: Grpc<T>,
}

impl<T> CertificateClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// A client over this transport.
    pub fn new(transport: T) -> Self {
        Self { inner: Grpc::new(transport) }
    }

    /// Has a certificate signed.
    ///
    /// # Errors
    /// The status the authority answers, or why it could not be reached.
    pub async fn create_certificate(
        &mut self,
        mut request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.inner.ready().await.map_err(|e| {
            Status::unavailable(format!("certificate authority cannot be reached: {}", e.into()))
        })?;
        request.extensions_mut().insert(GrpcMethod::new(CERTIFICATE_SERVICE, "CreateCertificate"));
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        self.inner.unary(request, path, ProstCodec::default()).await
    }
}
