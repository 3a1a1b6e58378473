//! Scopes: which names can be seen at a place of the config.

use crate::config::values::Bindings;
use std::rc::Rc;

/// The names that can be seen at a place of the config.
#[derive(Clone)]
pub(crate) struct Scope {
    /// Index of the config or orb whose commands, executors and jobs are meant.
    pub(crate) package: usize,
    /// Parameters of the job, command or executor around; `None` outside of those.
    pub(crate) parameters: Option<Rc<Bindings>>,
    /// Values of the matrix member, inside an entry with a matrix.
    pub(crate) matrix: Option<Rc<Bindings>>,
    /// Pipeline parameters cannot be seen in orbs, nor where they are declared.
    pub(crate) pipeline_parameters: bool,
}

impl Scope {
    /// Outside of every element: pipeline values and parameters only.
    pub(crate) fn pipeline(package: usize, pipeline_parameters: bool) -> Self {
        Self { package, parameters: None, matrix: None, pipeline_parameters }
    }

    /// The scope of the elements of a package, without their parameters.
    pub(crate) fn of_package(package: usize) -> Self {
        Self::pipeline(package, package == 0)
    }

    /// Inside an element of the same package.
    pub(crate) fn with_parameters(&self, parameters: Bindings) -> Self {
        Self { parameters: Some(Rc::new(parameters)), matrix: None, ..self.clone() }
    }
}
