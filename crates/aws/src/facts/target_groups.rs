//! Target groups of others, by their names.

use super::{FactStore, MAXIMUM_AGE, unavailable};
use albatross_core::{facts::Fact, model::TargetGroupArn};

impl FactStore {
    /// The target group of a name. One that does not exist is looked up again every time.
    pub(crate) async fn target_group(&self, name: &str) -> Fact<TargetGroupArn> {
        let cell = self.ages.cell(&self.target_groups, &name.to_owned());
        let mut kept = cell.lock().await;
        let mut absent = false;
        let read = async {
            let found = self.aws.target_group_named(name).await?;
            absent = found.is_none();
            Ok(found.unwrap_or_else(|| TargetGroupArn::new("")))
        };
        let found = self.ages.get(&mut kept, MAXIMUM_AGE, read).await.map(|reading| reading.value.clone());
        if absent {
            *kept = None;
            return Fact::Absent {
                message: format!("there is no target group named `{name}` in the account and region"),
                fix: "create it, or name another by `targetGroupName` or `targetGroupARN`".to_owned(),
            };
        }
        found.map_or_else(|error| unavailable(&error), Fact::Known)
    }
}
