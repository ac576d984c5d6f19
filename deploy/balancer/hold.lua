-- Holds a request while no gateway is up, up to BALANCER_HOLD_SECONDS.
local hold_s = tonumber(os.getenv("BALANCER_HOLD_SECONDS") or "") or 60

core.register_action("await_gateway", { "http-req" }, function(txn)
  local gateways = core.backends["gateways"]
  local ends = core.now().sec + hold_s
  while gateways:get_srv_act() == 0 do
    if core.now().sec >= ends then
      txn:set_var("txn.no_gateway", true)
      return
    end
    core.msleep(100)
  end
end)
