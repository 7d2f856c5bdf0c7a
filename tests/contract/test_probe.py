def test_probe(engine, other):
    engine.malloc("m0")
    print(engine.kind, engine.rpc("bdev_get_bdevs"))
    nqn="nqn.2026-01.io.ws7000:t:probe"
    other.malloc("m0"); port = other.serve(nqn,"m0")
    print(engine.rpc("bdev_nvme_attach_controller",name="d0",trtype="TCP",adrfam="IPv4",traddr="127.0.0.1",trsvcid=str(port),subnqn=nqn,multipath="disable"))
    print(engine.rpc("bdev_nvme_get_controllers"))
    print(other.rpc("nvmf_get_subsystems"))
    print(other.rpc("nvmf_subsystem_get_listeners",nqn=nqn))
    print(other.rpc("framework_get_config",name="nvmf"))
