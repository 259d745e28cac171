package dev.wardrobe.trainer;

import dev.wardrobe.spi.ServerContext;
import dev.wardrobe.spi.ServerExtension;
import dev.wardrobe.trainer.plan.PlanCommand;
import io.grpc.BindableService;
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

  @Override
  public List<BindableService> services(ServerContext context) {
    return context.runs().isEmpty()
        ? List.of()
        : List.of(new TrainingCalls(new RunFolders(context.runs())));
  }
}
