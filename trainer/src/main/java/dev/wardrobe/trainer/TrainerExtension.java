package dev.wardrobe.trainer;

import dev.wardrobe.spi.ServerExtension;
import dev.wardrobe.trainer.plan.PlanCommand;
import java.util.List;

/**
 * The trainer's place in the server: its commands and services are registered here, over the same
 * resident base.
 */
public final class TrainerExtension implements ServerExtension {
  @Override
  public List<Object> commands() {
    return List.of(new TrainCommand(), new PlanCommand());
  }
}
