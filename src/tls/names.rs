//! The names in a certificate: its subject's common name, and the alternative names (RFC 5280 §4.1.2.6, §4.2.1.6).

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name as Subject;

/// `id-at-commonName`.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The names of a client, as its certificate has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The common name first.
    all: Vec<Name>,
    first: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// A common name, a URI or a mail address, compared as they are written.
    Text(String),
    /// A DNS name, of which upper and lower case are the same.
    Dns(String),
    /// An address, however it is written.
    Ip(IpAddr),
}

impl Names {
    /// Reads them.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn of(certificate: &[u8]) -> Result<Self, String> {
        let certificate = read(certificate)?;
        let alternatives = certificate.tbs_certificate.get::<SubjectAltName>().map_err(unreadable)?;
        let alternatives = alternatives.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
        let common = common_name(&certificate.tbs_certificate.subject).map(Name::Text);
        let all: Vec<Name> = common.into_iter().chain(alternatives.iter().filter_map(Name::of)).collect();
        let first = all.first().map(Name::text).unwrap_or_default().into();
        Ok(Self { all, first })
    }

    /// The name by which the client is known: the common name, or else the first alternative name. Empty without any.
    pub fn first(&self) -> Arc<str> {
        Arc::clone(&self.first)
    }

    /// Whether one of them is `allowed`.
    pub fn have(&self, allowed: &str) -> bool {
        self.all.iter().any(|name| match name {
            Name::Text(text) => text == allowed,
            Name::Dns(name) => name.eq_ignore_ascii_case(allowed),
            Name::Ip(ip) => allowed.parse() == Ok(*ip),
        })
    }
}

impl Name {
    fn of(name: &GeneralName) -> Option<Self> {
        Some(match name {
            GeneralName::DnsName(name) => Self::Dns(name.as_str().to_owned()),
            GeneralName::UniformResourceIdentifier(text) | GeneralName::Rfc822Name(text) => Self::Text(text.as_str().to_owned()),
            GeneralName::IpAddress(octets) => Self::Ip(match octets.as_bytes().len() {
                4 => <[u8; 4]>::try_from(octets.as_bytes()).ok()?.into(),
                _ => <[u8; 16]>::try_from(octets.as_bytes()).ok()?.into(),
            }),
            _ => return None,
        })
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Dns(text) => text.clone(),
            Self::Ip(ip) => ip.to_string(),
        }
    }
}

/// The name of a certificate's subject, and when the certificate ends.
pub(super) fn subject_and_end(certificate: &[u8]) -> Result<(String, Timestamp), String> {
    let certificate = read(certificate)?.tbs_certificate;
    let name = common_name(&certificate.subject).unwrap_or_else(|| certificate.subject.to_string());
    let seconds = certificate.validity.not_after.to_unix_duration().as_secs();
    let ends = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok((name, ends.unwrap_or(Timestamp::MAX)))
}

fn read(certificate: &[u8]) -> Result<Certificate, String> {
    Certificate::from_der(certificate).map_err(unreadable)
}

fn unreadable(error: x509_cert::der::Error) -> String {
    format!("a certificate cannot be read (X.509): {error}")
}

/// The last one, which is the most specific.
fn common_name(subject: &Subject) -> Option<String> {
    let attributes = subject.0.iter().flat_map(|part| part.0.iter());
    attributes.filter(|attribute| attribute.oid == COMMON_NAME).filter_map(|attribute| text(&attribute.value)).next_back()
}

fn text(value: &Any) -> Option<String> {
    let is_text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString);
    is_text.then(|| std::str::from_utf8(value.value()).ok().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: Vec<Name>) -> Names {
        Names { first: all.first().map(Name::text).unwrap_or_default().into(), all }
    }

    #[test]
    fn each_kind_of_name_is_compared_as_its_kind_is() {
        let names = names(vec![
            Name::Text("cloud-1".into()),
            Name::Dns("Control.example".into()),
            Name::Text("spiffe://example/nova".into()),
            Name::Ip("2001:db8::1".parse().unwrap()),
        ]);
        for right in ["cloud-1", "control.EXAMPLE", "spiffe://example/nova", "2001:DB8:0::1"] {
            assert!(names.have(right), "{right}");
        }
        for wrong in ["", "Cloud-1", "cloud", "example", "spiffe://example/Nova", "2001:db8::2", "*"] {
            assert!(!names.have(wrong), "{wrong}");
        }
        assert_eq!(&*names.first(), "cloud-1");
    }

    #[test]
    fn what_is_no_certificate_is_refused_in_words() {
        assert!(Names::of(b"x").unwrap_err().contains("X.509"));
    }
}
