//! A repository of the hub.

/// The content of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

/// A repository by its id, such as `org/name`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repo<'a> {
    pub kind: Kind,
    pub id: &'a str,
}

impl<'a> Repo<'a> {
    pub fn model(id: &'a str) -> Repo<'a> {
        Repo { kind: Kind::Model, id }
    }

    pub fn dataset(id: &'a str) -> Repo<'a> {
        Repo { kind: Kind::Dataset, id }
    }

    /// Its kind in addresses and in the names of folders.
    pub fn plural(&self) -> &'static str {
        match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }

    /// Its kind in messages.
    pub fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Model => "model",
            Kind::Dataset => "data set",
        }
    }

    /// The kind of local path that may stand in its place, in messages.
    pub fn local(&self) -> &'static str {
        match self.kind {
            Kind::Model => "folder",
            Kind::Dataset => "file or folder",
        }
    }
}
